"""SE-ResNets of MMPretrain."""

from typing import Any

from torch import Tensor

from mmdet_attn.weights.converters.rules import BLOCK, BLOCKS, STEM, renamed
from mmdet_attn.weights.converters.stages import (
    State,
    depth_of,
    last_position,
    plugins_by_stage,
    stage_values,
)

DESCRIPTION = 'ImageNet SE-ResNets of MMPretrain (mmclassification)'
LAYER = rf'backbone\.({BLOCK})\.se_layer'
RULES = {
    **{rf'backbone\.({pattern})': r'\1' for pattern in (*STEM, *BLOCKS)},
    rf'{LAYER}\.conv([12])\.conv\.(weight|bias)': r'\1.se.fc\2.\3',
    r'head\.fc\.(weight|bias)': None,
}
FCS = ('.se.fc1.weight', '.se.fc2.weight')


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours; the 1x1 convolutions of SE to linear layers."""
    return {
        name: value.flatten(1) if name.endswith(FCS) else value
        for name, value in renamed('mmpretrain', state, RULES).items()
    }


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('mmpretrain', state)
    reductions = stage_values(
        'mmpretrain',
        state,
        r'se_layer\.conv1\.conv\.weight',
        lambda value: value.shape[1] // value.shape[0],
    )
    return dict(
        type='mmdet.ResNet' if depth >= 50 else 'mmdet_attn.AttentionResNet',
        depth=depth,
        plugins=plugins_by_stage(
            reductions,
            lambda r: dict(type='mmdet_attn.SE', reduction=r),
            last_position(depth),
        ),
    )
