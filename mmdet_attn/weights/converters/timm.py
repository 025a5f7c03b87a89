"""SE- and ECA-ResNets of timm, its legacy ones included, and its SKNet-50.

The files of the aa variants (`seresnetaa50d`) look the same as others. Those
networks pool where the others stride, so their weights convert and then
compute something else. The legacy networks pool without padding behind the
first convolution, MMDetection pools with it: the maps are shifted by a pixel.
"""

from typing import Any

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.source import (
    BLOCK,
    CLASSIFIER,
    Rules,
    Source,
    in_blocks,
    se_as_linear,
)
from mmdet_attn.weights.infer_backbone import (
    State,
    depth_of,
    resnet_with,
)

eca_resnet = resnet_with('mmdet_attn.ECA', kernel_size='se.conv.weight')
se_resnet = resnet_with('mmdet_attn.SE', reduction='se(_module)?.fc1.weight')


def _rules(state: State) -> Rules:
    deep = 'conv1.0.weight' in state
    return {
        # The d variants pool first, which moves the shortcut's two by one.
        f'(conv1|{BLOCK}.((conv|bn)[123]|downsample.[012]))': r'\1',
        # Their stem has three convolutions.
        r'conv1.(\d)': r'stem.\1',
        'bn1': 'stem.7' if deep else 'bn1',
        'layer0.(conv1|bn1)': r'\1',
        'last_linear': None,
        **CLASSIFIER,
        **in_blocks({r'se(_module)?.(fc[12])': r'se.\3'}),
        **in_blocks({'se.conv': 'eca.conv'}),
        **in_blocks(
            {
                'conv([13]).conv': r'conv\2',
                'conv([13]).bn': r'bn\2',
                'conv2.paths.([01]).conv': r'conv2.convs.\2',
                'conv2.paths.([01]).bn': r'conv2.norms.\2',
                'conv2.attn.fc_reduce': 'conv2.fc1',
                'conv2.attn.bn': 'conv2.norm',
                'conv2.attn.fc_select': 'conv2.fc2',
            }
        ),
    }


def _backbone_cfg(state: State) -> dict[str, Any]:
    if 'layer1.0.conv2.paths.0.conv.weight' in state:
        return dict(
            type='mmdet_attn.SKNet',
            depth=depth_of(state, bottleneck=True),
            dcn=dict(type='mmdet_attn.SKConv2d'),
        )
    eca = any(key.endswith('.se.conv.weight') for key in state)
    cfg = eca_resnet(state) if eca else se_resnet(state)
    depth = cfg['depth']
    if 'layer0.conv1.weight' in state:
        if depth < 50:
            raise InputError(
                f'a legacy_seresnet{depth}, which has one more ReLU, in front '
                'of SE: take seresnet50 or deeper, or seresnet18, seresnet34.'
            )
        return cfg | dict(style='caffe')
    averages = any('.downsample.2.' in key for key in state)
    if 'conv1.0.weight' not in state:
        return cfg | (dict(avg_down=True) if averages else {})
    if averages and depth >= 50:
        return cfg | dict(type='mmdet.ResNetV1d')
    return cfg | dict(deep_stem=True, avg_down=averages)


TIMM = Source(
    'timm',
    'ImageNet weights of timm: seresnet, ecaresnet (also ...d, not aa), '
    'legacy_seresnet50 and deeper, skresnext50_32x4d',
    _rules,
    _backbone_cfg,
    reshape=se_as_linear,
)
