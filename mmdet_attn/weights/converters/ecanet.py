"""ECA-Net's own ImageNet networks."""

from typing import Any

from mmdet_attn.weights.converters.mobilenet import mobilenet
from mmdet_attn.weights.converters.source import (
    CLASSIFIER,
    Source,
    in_blocks,
    new_names,
    resnet,
)
from mmdet_attn.weights.infer_backbone import READ, State, resnet_with

RESNET = resnet() | in_blocks({'eca.conv': 'eca.conv'}) | CLASSIFIER
MOBILENET = mobilenet(
    'features.18',
    {
        '0.0': 'depthwise_conv.conv',
        '0.1': 'depthwise_conv.bn',
        '1': 'linear_conv.conv',
        '2': 'linear_conv.bn',
        '3.conv': 'eca.conv',
    },
    {
        '0.0': 'expand_conv.conv',
        '0.1': 'expand_conv.bn',
        '1.0': 'depthwise_conv.conv',
        '1.1': 'depthwise_conv.bn',
        '2': 'linear_conv.conv',
        '3': 'linear_conv.bn',
        '4.conv': 'eca.conv',
    },
)
eca_resnet = resnet_with('mmdet_attn.ECA', kernel_size='eca.conv.weight')


def _mobile(state: State) -> bool:
    return any(key.startswith('features.') for key in state)


def _backbone_cfg(state: State) -> dict[str, Any]:
    if not _mobile(state):
        return eca_resnet(state)
    # Whether these weights fit is not looked at here.
    kernel_size: dict[bool, int] = {}
    names = new_names(state, MOBILENET)
    ours = {names[key]: value for key, value in state.items()}
    for key, value in ours.items():
        if key and key.endswith('.eca.conv.weight'):
            out = len(ours.get(key.replace('eca', 'linear_conv'), ()))
            kernel_size[out < 96] = READ['kernel_size'](value)
    return dict(
        type='mmdet_attn.AttentionMobileNetV2',
        plugin=dict(type='mmdet_attn.ECA', kernel_size=kernel_size.get(False)),
        narrow=dict(kernel_size=kernel_size.get(True)),
    )


ECANET = Source(
    'ecanet',
    'ImageNet weights of BangguWu/ECANet: ResNet-18 to -152, MobileNetV2',
    lambda state: MOBILENET if _mobile(state) else RESNET,
    _backbone_cfg,
)
