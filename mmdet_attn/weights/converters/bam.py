"""BAM's own ImageNet networks."""

import re
from typing import Any

from torch import Tensor

from mmdet_attn.weights.converters.rename import NORM, RESNET, Rules
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import (
    State,
    kind_of,
    reduction,
    resnet_with,
)

# Layers under the official names and ours.
LAYERS = {
    'channel_att.gate_c.gate_c_fc_0': 'channel.0',
    'channel_att.gate_c.gate_c_bn_1': 'channel.1',
    'channel_att.gate_c.gate_c_fc_final': 'channel.3',
    'spatial_att.gate_s.gate_s_conv_reduce0': 'spatial.0',
    'spatial_att.gate_s.gate_s_bn_reduce0': 'spatial.1',
    'spatial_att.gate_s.gate_s_conv_di_0': 'spatial.3',
    'spatial_att.gate_s.gate_s_bn_di_0': 'spatial.4',
    'spatial_att.gate_s.gate_s_conv_di_1': 'spatial.6',
    'spatial_att.gate_s.gate_s_bn_di_1': 'spatial.7',
    'spatial_att.gate_s.gate_s_conv_final': 'spatial.9',
}
bam_resnet = resnet_with(
    'mmdet_attn.BAM',
    dict(reduction=(r'channel_att\.gate_c\.gate_c_fc_0\.weight', reduction)),
    position='after_block',
    blocks=(-1,),
    needed=(1, 2, 3),
)


def _rules(state: State) -> Rules:
    kind = kind_of(state)
    # The module is one of the network there, of a stage's last block here.
    return RESNET | {
        rf'bam{stage}\.{re.escape(layer)}\.{NORM}': (
            rf'layer{stage}.{count - 1}.bam.{name}.\1'
        )
        for stage, count in enumerate(kind.blocks[:3] if kind else (), 1)
        for layer, name in LAYERS.items()
    }


def _backbone_cfg(state: State) -> dict[str, Any]:
    in_blocks = {
        re.sub(r'^bam(\d)', r'layer\1.0', key): value
        for key, value in state.items()
    }
    return bam_resnet(in_blocks)


def _linear_as_conv(name: str, value: Tensor) -> Tensor:
    return value[:, :, None, None] if value.dim() == 2 else value


BAM = Source(
    'bam',
    'ImageNet ResNets with BAM of Jongchan/attention-module',
    _rules,
    _backbone_cfg,
    reshape=_linear_as_conv,
)
