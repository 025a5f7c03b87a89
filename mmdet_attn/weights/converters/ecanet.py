"""ECA-Net's own ImageNet networks."""

from typing import Any

from mmdet_attn.weights.converters.mobilenet import mobilenet, mobilenet_with
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


def _backbone_cfg(state: State) -> dict[str, Any]:
    if not any(key.startswith('features.') for key in state):
        return eca_resnet(state)
    # Whether the weights fit is not looked at here.
    names = new_names(state, MOBILENET)
    ours = {names[key] or '': value for key, value in state.items()}
    sizes: dict[bool, int] = {}
    for key, value in ours.items():
        if key.endswith('.eca.conv.weight'):
            out = len(ours.get(key.replace('eca', 'linear_conv'), ()))
            sizes[out < 96] = READ['kernel_size'](value)
    # Below 96 channels are the layers 1 to 4.
    values = {
        'layer[1-4].*.linear_conv': sizes.get(True),
        'layer[5-7].*.linear_conv': sizes.get(False),
    }
    return mobilenet_with('mmdet_attn.ECA', 'kernel_size', values)


ECANET = Source(
    'ecanet',
    'ImageNet weights of BangguWu/ECANet: ResNet-18 to -152, MobileNetV2',
    RESNET | MOBILENET,
    _backbone_cfg,
)
