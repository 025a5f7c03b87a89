"""CBAM's own ImageNet networks."""

from typing import Any

from torch import Tensor

from mmdet_attn.weights.converters.rules import BLOCK, NORM, RESNET, renamed
from mmdet_attn.weights.converters.stages import (
    State,
    depth_of,
    last_position,
    plugins_by_stage,
    stage_values,
)

DESCRIPTION = 'ImageNet ResNets with CBAM of Jongchan/attention-module'
GATES = rf'({BLOCK})\.cbam\.(?:ChannelGate|SpatialGate\.spatial)'
RULES = {
    **RESNET,
    rf'{GATES}\.mlp\.1\.(weight|bias)': r'\1.cbam.channel.fc1.\2',
    rf'{GATES}\.mlp\.3\.(weight|bias)': r'\1.cbam.channel.fc2.\2',
    rf'{GATES}\.conv\.weight': r'\1.cbam.spatial.conv.weight',
    rf'{GATES}\.bn\.{NORM}': r'\1.cbam.spatial.norm.\2',
}


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours."""
    return renamed('cbam', state, RULES)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('cbam', state)
    reductions = stage_values(
        'cbam',
        state,
        r'cbam\.ChannelGate\.mlp\.1\.weight',
        lambda value: value.shape[1] // value.shape[0],
    )
    return dict(
        type='mmdet_attn.AttentionResNet',
        depth=depth,
        plugins=plugins_by_stage(
            reductions,
            lambda r: dict(type='mmdet_attn.CBAM', reduction=r),
            last_position(depth),
        ),
    )
