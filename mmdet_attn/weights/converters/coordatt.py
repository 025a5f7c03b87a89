"""Coordinate Attention's own ImageNet MobileNetV2."""

from typing import Any

from torch import Tensor

from mmdet_attn.weights.converters import mobilenet
from mmdet_attn.weights.converters.rules import NORM, renamed
from mmdet_attn.weights.converters.stages import State, require

DESCRIPTION = 'ImageNet MobileNetV2 (mbv2_ca) of houqb/CoordAttention'
MODULE = rf'({mobilenet.EXPANDING})\.6'
RULES = {
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
    rf'{MODULE}\.(?:conv2|conv_h)\.(weight|bias)': r'\1.coordatt.conv_h.\2',
    rf'{MODULE}\.(?:conv3|conv_w)\.(weight|bias)': r'\1.coordatt.conv_w.\2',
}


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours."""
    return renamed('coordatt', state, RULES, mobilenet.alias)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    mobilenet.check_blocks('coordatt', state)
    # In the widest block the fewest hidden channels do not hide r.
    weight = require('coordatt', state, 'features.17.conv.6.conv1.weight')
    return dict(
        type='mmdet_attn.AttentionMobileNetV2',
        plugin=dict(
            type='mmdet_attn.CoordAtt',
            reduction=weight.shape[1] // weight.shape[0],
        ),
        position='after_conv2',
    )
