"""GSoP-Net's own ImageNet networks."""

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
    'ImageNet GSoP-Net1 of '
    'ZilinGao/Global-Second-order-Pooling-Convolutional-Networks'
)
RULES = {
    **RESNET,
    rf'({BLOCK})\.conv_for_DR\.(weight|bias)': r'\1.gsop.reduce.\2',
    rf'({BLOCK})\.bn_for_DR\.{NORM}': r'\1.gsop.norm.\2',
    rf'({BLOCK})\.row_bn\.{NORM}': r'\1.gsop.row_norm.\2',
    rf'({BLOCK})\.row_conv_group\.(weight|bias)': r'\1.gsop.row_conv.\2',
    rf'({BLOCK})\.fc_adapt_channels\.(weight|bias)': r'\1.gsop.expand.\2',
}


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours; there they lie directly in the block."""
    return renamed('gsop', state, RULES)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('gsop', state)
    widths = stage_values(
        'gsop',
        state,
        r'conv_for_DR\.weight',
        lambda value: value.shape[0],
        every=False,
    )
    plugins = plugins_by_stage(
        widths,
        lambda width: dict(type='mmdet_attn.GSoP', att_dim=width),
        last_position(depth),
    )
    return dict(
        type='mmdet_attn.AttentionResNet',
        depth=depth,
        strides=(1, 2, 2, 1),  # their last stage keeps the map's size
        plugins=[dict(plugin, blocks=(-1,)) for plugin in plugins],
    )
