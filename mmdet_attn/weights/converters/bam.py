"""BAM's own ImageNet networks."""

import re
from typing import Any

from torch import Tensor

from mmdet_attn.weights.converters.rename import NORM, RESNET, Rules
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import (
    State,
    depth_of,
    kind_of,
    plugins_by_stage,
    reduction,
    require,
)

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


def _rules(state: State) -> Rules:
    rules = dict(RESNET)
    kind = kind_of(state)
    # The module is one of the network there, of a stage's last block here.
    for stage, count in enumerate(kind.blocks[:3] if kind else (), 1):
        for layer, (name, norm) in LAYERS.items():
            tail = NORM if norm else '(weight|bias)'
            place = f'layer{stage}.{count - 1}.bam'
            layer = re.escape(layer)
            rules[rf'bam{stage}\.{layer}\.{tail}'] = rf'{place}.{name}.\1'
    return rules


def _linear_as_conv(name: str, value: Tensor) -> Tensor:
    return value[:, :, None, None] if value.dim() == 2 else value


def _backbone_cfg(state: State) -> dict[str, Any]:
    depth = depth_of(state)
    weights = [require(state, f'bam{n}.{FIRST_LAYER}') for n in (1, 2, 3)]
    cfgs = [
        dict(type='mmdet_attn.BAM', reduction=reduction(w)) for w in weights
    ]
    plugins = plugins_by_stage([*cfgs, None], 'after_block')
    return dict(
        type='mmdet_attn.AttentionResNet',
        depth=depth,
        plugins=[dict(plugin, blocks=(-1,)) for plugin in plugins],
    )


BAM = Source(
    'bam',
    'ImageNet ResNets with BAM of Jongchan/attention-module',
    _rules,
    _backbone_cfg,
    reshape=_linear_as_conv,
)
