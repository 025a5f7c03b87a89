"""SimAM's own ImageNet networks."""

from typing import Any

from mmdet_attn.weights.converters.rename import BLOCK, RESNET_WITHOUT_CONV2
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import State, bottleneck_depth_of


def _backbone_cfg(state: State) -> dict[str, Any]:
    return dict(
        type='mmdet.ResNet',
        depth=bottleneck_depth_of(state),
        # Their training has 0.1 where the paper has 1e-4.
        dcn=dict(type='mmdet_attn.SimAMConv2d', lambda_=0.1),
        stage_with_dcn=(True, True, True, True),
    )


SIMAM = Source(
    'simam',
    'ImageNet ResNets (50 and deeper) with SimAM of ZjjConan/SimAM',
    {
        **RESNET_WITHOUT_CONV2,
        rf'({BLOCK})\.conv2\.0\.weight': r'\1.conv2.weight',
    },
    _backbone_cfg,
)
