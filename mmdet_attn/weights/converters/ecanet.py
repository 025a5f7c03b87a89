"""ECA-Net's own ImageNet networks."""

from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters import mobilenet
from mmdet_attn.weights.converters.rules import BLOCK, RESNET, renamed
from mmdet_attn.weights.converters.stages import (
    State,
    depth_of,
    last_position,
    plugins_by_stage,
    stage_values,
)

DESCRIPTION = (
    'ImageNet weights of BangguWu/ECANet: ResNet-18 to -152, MobileNetV2'
)
RESNET_RULES = {**RESNET, rf'{BLOCK}\.eca\.conv\.weight': r'\g<0>'}
MOBILENET_RULES = {
    **mobilenet.network_rules(r'features\.18'),
    **mobilenet.block_rules(
        mobilenet.FIRST,
        ('0.0', '0.1', 'depthwise_conv'),
        ('1', '2', 'linear_conv'),
    ),
    **mobilenet.block_rules(
        mobilenet.EXPANDING,
        ('0.0', '0.1', 'expand_conv'),
        ('1.0', '1.1', 'depthwise_conv'),
        ('2', '3', 'linear_conv'),
    ),
    rf'({mobilenet.FIRST})\.3\.conv\.weight': r'\1.eca.conv.weight',
    rf'({mobilenet.EXPANDING})\.4\.conv\.weight': r'\1.eca.conv.weight',
}


def _mobile(state: State) -> bool:
    return any(key.startswith('features.') for key in state)


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours."""
    if _mobile(state):
        return renamed('ecanet', state, MOBILENET_RULES, mobilenet.alias)
    return renamed('ecanet', state, RESNET_RULES)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    if _mobile(state):
        mobilenet.check_blocks('ecanet', state)
        return dict(type='mmdet_attn.AttentionMobileNetV2') | sizes(state)
    depth = depth_of('ecanet', state)
    kind = 'mmdet_attn.AttentionResNet' if depth < 50 else 'mmdet.ResNet'
    return dict(type=kind, depth=depth) | sizes(state)


def sizes(state: State) -> dict[str, Any]:
    """The kernel sizes of the weights, as arguments of the backbone.

    Raises:
        InputError: They differ where a config has one value.
    """
    if _mobile(state):
        return _mobile_sizes(state)
    values = stage_values(
        'ecanet', state, r'eca\.conv\.weight', lambda value: value.shape[-1]
    )
    position = last_position(depth_of('ecanet', state))
    return dict(plugins=plugins_by_stage(values, _plugin, position))


def _plugin(size: int) -> dict:
    return dict(type='mmdet_attn.ECA', kernel_size=size)


def _mobile_sizes(state: State) -> dict[str, Any]:
    ours = convert(state)
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for key, value in ours.items():
        if key.endswith('.eca.conv.weight'):
            last = ours.get(key.replace('eca', 'linear_conv'))
            few = last is not None and last.shape[0] < 96
            found[few].add(value.shape[-1])
    if [len(values) for values in found.values()] != [1, 1]:
        raise InputError(
            f'ecanet: kernel sizes {sorted(found[True])} in blocks of fewer '
            f'than 96 output channels and {sorted(found[False])} in the '
            'others: AttentionMobileNetV2 takes one for each.'
        )
    return dict(
        plugin=_plugin(found[False].pop()),
        narrow=dict(kernel_size=found[True].pop()),
    )


def config_line(state: State) -> str:
    """What a backbone's config says about the kernel sizes."""
    return ', '.join(f'{name}={value}' for name, value in sizes(state).items())
