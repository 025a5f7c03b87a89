"""ECA-Net's own ImageNet networks."""

from typing import Any

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters import mobilenet
from mmdet_attn.weights.converters.rename import (
    BLOCK,
    RESNET,
    Rules,
    renamed,
)
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import State, last_dim, resnet_with

RESNET_RULES: Rules = {**RESNET, rf'{BLOCK}\.eca\.conv\.weight': r'\g<0>'}
MOBILENET_RULES: Rules = {
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
eca_resnet = resnet_with(
    'mmdet_attn.ECA', dict(kernel_size=(r'eca\.conv\.weight', last_dim))
)


def _mobile(state: State) -> bool:
    return any(key.startswith('features.') for key in state)


def _rules(state: State) -> Rules:
    return MOBILENET_RULES if _mobile(state) else RESNET_RULES


def _backbone_cfg(state: State) -> dict[str, Any]:
    if not _mobile(state):
        return eca_resnet(state)
    mobilenet.check_blocks(state)
    ours = renamed(state, MOBILENET_RULES, mobilenet.alias)
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for key, value in ours.items():
        if key.endswith('.eca.conv.weight'):
            last = ours.get(key.replace('eca', 'linear_conv'))
            few = last is not None and last.shape[0] < 96
            found[few].add(last_dim(value))
    if [len(values) for values in found.values()] != [1, 1]:
        raise InputError(
            f'kernel sizes {sorted(found[True])} in blocks of fewer than 96 '
            f'output channels and {sorted(found[False])} in the others: '
            'AttentionMobileNetV2 takes one for each.'
        )
    return dict(
        type='mmdet_attn.AttentionMobileNetV2',
        plugin=dict(type='mmdet_attn.ECA', kernel_size=found[False].pop()),
        narrow=dict(kernel_size=found[True].pop()),
    )


ECANET = Source(
    'ecanet',
    'ImageNet weights of BangguWu/ECANet: ResNet-18 to -152, MobileNetV2',
    _rules,
    _backbone_cfg,
    alias=mobilenet.alias,
)
