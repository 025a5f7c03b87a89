"""Coordinate Attention's own ImageNet MobileNetV2."""

from typing import Any

from mmdet_attn.weights.converters import mobilenet
from mmdet_attn.weights.converters.rename import NORM
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import State, reduction, require

MODULE = rf'({mobilenet.EXPANDING})\.6'


def _backbone_cfg(state: State) -> dict[str, Any]:
    mobilenet.check_blocks(state)
    # In the widest block the fewest hidden channels do not hide r.
    weight = require(state, 'features.17.conv.6.conv1.weight')
    return dict(
        type='mmdet_attn.AttentionMobileNetV2',
        plugin=dict(type='mmdet_attn.CoordAtt', reduction=reduction(weight)),
        position='after_conv2',
    )


COORDATT = Source(
    'coordatt',
    'ImageNet MobileNetV2 (mbv2_ca) of houqb/CoordAttention',
    {
        **mobilenet.network_rules('conv'),
        **mobilenet.block_rules(
            mobilenet.FIRST,
            ('0', '1', 'depthwise_conv'),
            ('3', '4', 'linear_conv'),
        ),
        **mobilenet.block_rules(
            mobilenet.EXPANDING,
            ('0', '1', 'expand_conv'),
            ('3', '4', 'depthwise_conv'),
            ('7', '8', 'linear_conv'),
        ),
        rf'{MODULE}\.conv1\.(weight|bias)': r'\1.coordatt.conv1.\2',
        rf'{MODULE}\.bn1\.{NORM}': r'\1.coordatt.norm.\2',
        rf'{MODULE}\.(?:conv2|conv_h)\.(weight|bias)': (
            r'\1.coordatt.conv_h.\2'
        ),
        rf'{MODULE}\.(?:conv3|conv_w)\.(weight|bias)': (
            r'\1.coordatt.conv_w.\2'
        ),
    },
    _backbone_cfg,
    alias=mobilenet.alias,
)
