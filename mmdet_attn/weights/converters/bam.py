"""BAM's own ImageNet networks."""

import re
from typing import Any

from torch import Tensor

from mmdet_attn.weights.converters.rules import NORM, RESNET, renamed
from mmdet_attn.weights.converters.stages import (
    State,
    block_counts,
    depth_of,
    plugins_by_stage,
    require,
)

DESCRIPTION = 'ImageNet ResNets with BAM of Jongchan/attention-module'
# Layers, and whether each is a norm, under the official names and ours.
LAYERS = {
    'channel_att.gate_c.gate_c_fc_0': ('channel.0', False),
    'channel_att.gate_c.gate_c_bn_1': ('channel.1', True),
    'channel_att.gate_c.gate_c_fc_final': ('channel.3', False),
    'spatial_att.gate_s.gate_s_conv_reduce0': ('spatial.0', False),
    'spatial_att.gate_s.gate_s_bn_reduce0': ('spatial.1', True),
    'spatial_att.gate_s.gate_s_conv_di_0': ('spatial.3', False),
    'spatial_att.gate_s.gate_s_bn_di_0': ('spatial.4', True),
    'spatial_att.gate_s.gate_s_conv_di_1': ('spatial.6', False),
    'spatial_att.gate_s.gate_s_bn_di_1': ('spatial.7', True),
    'spatial_att.gate_s.gate_s_conv_final': ('spatial.9', False),
}
FIRST_LAYER = 'channel_att.gate_c.gate_c_fc_0.weight'


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours; linear layers to 1x1 convolutions."""
    rules = dict(RESNET)
    # The module is one of the network there, of a stage's last block here.
    for stage, count in enumerate(block_counts(state)[:3], 1):
        for layer, (name, norm) in LAYERS.items():
            tail = NORM if norm else '(weight|bias)'
            place = f'layer{stage}.{count - 1}.bam'
            layer = re.escape(layer)
            rules[rf'bam{stage}\.{layer}\.{tail}'] = rf'{place}.{name}.\1'
    return {
        name: value[:, :, None, None] if value.dim() == 2 else value
        for name, value in renamed('bam', state, rules).items()
    }


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('bam', state)
    weights = [
        require('bam', state, f'bam{stage}.{FIRST_LAYER}')
        for stage in (1, 2, 3)
    ]
    plugins = plugins_by_stage(
        [*(w.shape[1] // w.shape[0] for w in weights), None],
        lambda r: dict(type='mmdet_attn.BAM', reduction=r),
        'after_block',
    )
    return dict(
        type='mmdet_attn.AttentionResNet',
        depth=depth,
        plugins=[dict(plugin, blocks=(-1,)) for plugin in plugins],
    )
