"""Triplet Attention's own ImageNet networks."""

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

DESCRIPTION = (
    'ImageNet ResNets with triplet attention of landskape-ai/triplet-attention'
)
# Of the released networks, and of the module's later file.
BRANCHES = {
    'ChannelGateH.spatial': 'cw',
    'ChannelGateW.spatial': 'hc',
    'SpatialGate.spatial': 'hw',
    'cw.conv': 'cw',
    'hc.conv': 'hc',
    'hw.conv': 'hw',
}
RULES = dict(RESNET)
for branch, name in BRANCHES.items():
    place = rf'({BLOCK})\.triplet_attention\.{branch}'
    target = rf'\1.tripletattention.{name}'
    RULES[rf'{place}\.conv\.weight'] = rf'{target}.conv.weight'
    RULES[rf'{place}\.bn\.{NORM}'] = rf'{target}.norm.\2'


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours."""
    return renamed('triplet', state, RULES)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('triplet', state)
    sizes = stage_values(
        'triplet',
        state,
        r'triplet_attention\.(SpatialGate\.spatial|hw\.conv)\.conv\.weight',
        lambda value: value.shape[-1],
    )
    return dict(
        type='mmdet_attn.AttentionResNet',
        depth=depth,
        plugins=plugins_by_stage(
            sizes,
            lambda size: dict(
                type='mmdet_attn.TripletAttention', kernel_size=size
            ),
            last_position(depth),
        ),
    )
