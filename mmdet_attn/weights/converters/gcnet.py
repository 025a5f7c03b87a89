"""GCNet's own COCO detectors: their backbones."""

from typing import Any

from mmdet_attn.weights.converters.rename import BLOCK, IN_BACKBONE
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import (
    State,
    bottleneck_depth_of,
    reduction,
    resnet_with,
)

MODULE = rf'backbone\.({BLOCK})\.context_block'
BRANCH = r'channel_(add|mul)_conv\.[013]\.(weight|bias)'
gc_resnet = resnet_with(
    'mmdet_attn.GC',
    dict(
        reduction=(
            r'context_block\.channel_(add|mul)_conv\.0\.weight',
            reduction,
        )
    ),
    needed=(),
)


def _backbone_cfg(state: State) -> dict[str, Any]:
    bottleneck_depth_of(state)
    cfg = gc_resnet(state)
    attends = any('.conv_mask.' in key for key in state)
    for plugin in cfg['plugins']:
        plugin['cfg'].update(
            pooling='att' if attends else 'avg',
            fusion=tuple(
                kind
                for kind in ('mul', 'add')
                if any(f'.channel_{kind}_conv.' in key for key in state)
            ),
        )
    return cfg


GCNET = Source(
    'gcnet',
    'COCO detectors of xvjiarui/GCNet or of MMDetection (gcnet): the backbone',
    {
        **IN_BACKBONE,
        rf'{MODULE}\.({BRANCH})': r'\1.gc.\2',
        rf'{MODULE}\.(conv_mask\.(weight|bias))': r'\1.gc.\2',
        r'(neck|rpn_head|roi_head|bbox_head|mask_head)\..*': None,
    },
    _backbone_cfg,
)
