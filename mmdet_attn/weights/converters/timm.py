"""SE- and ECA-ResNets of timm, its legacy ones included.

Nothing in their files tells the aa variants (``seresnetaa50d``), which pool
where the others stride: they convert, and compute something else. The legacy
networks pool without padding behind the first convolution, MMDetection's
with it: their maps are shifted by a pixel there.
"""

import re
from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.rules import BLOCK, NORM, RESNET, renamed
from mmdet_attn.weights.converters.stages import (
    State,
    depth_of,
    last_position,
    plugins_by_stage,
    stage_values,
)

DESCRIPTION = (
    'ImageNet weights of timm: seresnet, ecaresnet (also ...d, not aa), '
    'legacy_seresnet50 and deeper'
)
RULES = {
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
FCS = ('.se.fc1.weight', '.se.fc2.weight')


def _deep(state: State) -> bool:
    return 'conv1.0.weight' in state


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours; the 1x1 convolutions of SE to linear layers."""
    norm = r'stem.7.\1' if _deep(state) else r'bn1.\1'
    rules = {**RULES, rf'bn1\.{NORM}': norm}
    return {
        name: value.flatten(1) if name.endswith(FCS) else value
        for name, value in renamed('timm', state, rules).items()
    }


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('timm', state)
    plugins = _plugins(state, last_position(depth))
    kind = 'mmdet.ResNet' if depth >= 50 else 'mmdet_attn.AttentionResNet'
    cfg: dict[str, Any] = dict(type=kind, depth=depth, plugins=plugins)
    if 'layer0.conv1.weight' in state:
        if depth < 50:
            raise InputError(
                f'timm: a legacy_seresnet{depth}, which has one more ReLU, '
                'in front of SE: take seresnet50 or deeper, or seresnet18, '
                'seresnet34.'
            )
        return cfg | dict(style='caffe')
    averages = any('.downsample.2.' in key for key in state)
    if not _deep(state):
        return cfg | (dict(avg_down=True) if averages else {})
    widths = [state[f'conv1.{n}.weight'].shape[0] for n in (0, 3, 6)]
    if widths[0] != widths[1] or widths[2] != 2 * widths[0]:
        raise InputError(
            f'timm: a stem of {widths} channels, where ResNetV1d has '
            '[32, 32, 64]: no backbone of MMDetection has that.'
        )
    if averages and depth >= 50:
        return cfg | dict(type='mmdet.ResNetV1d')
    return cfg | dict(deep_stem=True, avg_down=averages)


def _plugins(state: State, position: str) -> list[dict]:
    if any(key.endswith('.se.conv.weight') for key in state):
        sizes = stage_values(
            'timm', state, r'se\.conv\.weight', lambda value: value.shape[-1]
        )
        return plugins_by_stage(
            sizes,
            lambda size: dict(type='mmdet_attn.ECA', kernel_size=size),
            position,
        )
    reductions = stage_values(
        'timm',
        state,
        r'se(_module)?\.fc1\.weight',
        lambda value: value.shape[1] // value.shape[0],
    )
    return plugins_by_stage(
        reductions,
        lambda r: dict(type='mmdet_attn.SE', reduction=r),
        position,
    )
