"""SE- and ECA-ResNets of timm, its legacy ones included.

The files of the aa variants (`seresnetaa50d`) look the same as others. Those
networks pool where the others stride, so their weights convert and then
compute something else. The legacy networks pool without padding behind the
first convolution, MMDetection pools with it: the maps are shifted by a pixel.
"""

import re
from typing import Any

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.rename import (
    BLOCK,
    NORM,
    RESNET,
    Rules,
    se_as_linear,
)
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import (
    State,
    last_dim,
    reduction,
    resnet_with,
)

RULES: Rules = {
    **{k: v for k, v in RESNET.items() if not re.search('downsample|^bn', k)},
    # The d variants pool first, which moves the two by one.
    rf'{BLOCK}\.downsample\.[012]\.{NORM}': r'\g<0>',
    # Their stem has three convolutions.
    r'conv1\.([036])\.weight': r'stem.\1.weight',
    rf'conv1\.([14])\.{NORM}': r'stem.\1.\2',
    rf'({BLOCK})\.(?:se|se_module)\.(fc[12])\.(weight|bias)': r'\1.se.\2.\3',
    rf'({BLOCK})\.se\.conv\.weight': r'\1.eca.conv.weight',
    r'layer0\.conv1\.weight': 'conv1.weight',
    rf'layer0\.bn1\.{NORM}': r'bn1.\1',
    r'last_linear\.(weight|bias)': None,
}
eca_resnet = resnet_with(
    'mmdet_attn.ECA', dict(kernel_size=(r'se\.conv\.weight', last_dim))
)
se_resnet = resnet_with(
    'mmdet_attn.SE',
    dict(reduction=(r'se(_module)?\.fc1\.weight', reduction)),
)


def _deep(state: State) -> bool:
    return 'conv1.0.weight' in state


def _rules(state: State) -> Rules:
    return {
        **RULES,
        rf'bn1\.{NORM}': r'stem.7.\1' if _deep(state) else r'bn1.\1',
    }


def _backbone_cfg(state: State) -> dict[str, Any]:
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
    if not _deep(state):
        return cfg | (dict(avg_down=True) if averages else {})
    widths = [state[f'conv1.{n}.weight'].shape[0] for n in (0, 3, 6)]
    if widths[0] != widths[1] or widths[2] != 2 * widths[0]:
        raise InputError(
            f'a stem of {widths} channels, where ResNetV1d has [32, 32, 64]: '
            'no backbone of MMDetection has that.'
        )
    if averages and depth >= 50:
        return cfg | dict(type='mmdet.ResNetV1d')
    return cfg | dict(deep_stem=True, avg_down=averages)


TIMM = Source(
    'timm',
    'ImageNet weights of timm: seresnet, ecaresnet (also ...d, not aa), '
    'legacy_seresnet50 and deeper',
    _rules,
    _backbone_cfg,
    reshape=se_as_linear,
)
