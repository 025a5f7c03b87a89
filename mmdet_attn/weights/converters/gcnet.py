"""GCNet's own COCO detectors: their backbones."""

from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.rules import BLOCK, BLOCKS, STEM, renamed
from mmdet_attn.weights.converters.stages import (
    State,
    depth_of,
    plugins_by_stage,
    stage_values,
)

DESCRIPTION = (
    'COCO detectors of xvjiarui/GCNet or of MMDetection (gcnet): the backbone'
)
BACKBONE = {rf'backbone\.({pattern})': r'\1' for pattern in (*STEM, *BLOCKS)}
BRANCH = r'channel_(add|mul)_conv\.[013]\.(weight|bias)'
RULES = {
    **BACKBONE,
    rf'backbone\.({BLOCK})\.context_block\.({BRANCH})': r'\1.gc.\2',
    rf'backbone\.({BLOCK})\.context_block\.(conv_mask\.(weight|bias))': (
        r'\1.gc.\2'
    ),
    r'(neck|rpn_head|roi_head|bbox_head|mask_head)\..*': None,
}


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours."""
    return renamed('gcnet', state, RULES)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('gcnet', state)
    if depth < 50:
        raise InputError(
            f'gcnet: a ResNet-{depth}; the authors have no such detector.'
        )
    fusion = tuple(
        kind
        for kind in ('mul', 'add')
        if any(f'.channel_{kind}_conv.' in key for key in state)
    )
    reductions = stage_values(
        'gcnet',
        state,
        r'context_block\.channel_(add|mul)_conv\.0\.weight',
        lambda value: value.shape[1] // value.shape[0],
        every=False,
    )
    attends = any('.conv_mask.' in key for key in state)
    return dict(
        type='mmdet.ResNet',
        depth=depth,
        plugins=plugins_by_stage(
            reductions,
            lambda r: dict(
                type='mmdet_attn.GC',
                reduction=r,
                pooling='att' if attends else 'avg',
                fusion=fusion,
            ),
            'after_conv3',
        ),
    )
