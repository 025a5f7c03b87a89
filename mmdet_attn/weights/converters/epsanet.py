"""EPSANet's own ImageNet networks."""

from typing import Any

from mmdet_attn.weights.converters.rename import (
    BLOCK,
    RESNET_WITHOUT_CONV2,
    se_as_linear,
)
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import (
    State,
    bottleneck_depth_of,
    last_dim,
    reduction,
    require,
)

NUMBERS = (1, 2, 3, 4)


def _backbone_cfg(state: State) -> dict[str, Any]:
    depth = bottleneck_depth_of(state)
    place = 'layer1.0.conv2'
    convs = [require(state, f'{place}.conv_{n}.weight') for n in NUMBERS]
    planes = require(state, 'layer1.0.conv1.weight').shape[0]
    gate = require(state, f'{place}.se.fc1.weight')
    return dict(
        type='mmdet.ResNet',
        depth=depth,
        dcn=dict(
            type='mmdet_attn.PSAConv2d',
            kernel_sizes=tuple(map(last_dim, convs)),
            groups=tuple(planes // conv.shape[1] for conv in convs),
            reduction=reduction(gate),
        ),
        stage_with_dcn=(True, True, True, True),
    )


EPSANET = Source(
    'epsanet',
    'ImageNet EPSANet-50 and -101 (small) of murufeng/EPSANet',
    {
        **RESNET_WITHOUT_CONV2,
        rf'({BLOCK}\.conv2\.se\.fc[12]\.(weight|bias))': r'\1',
        **{
            rf'({BLOCK}\.conv2)\.conv_{number}\.weight': (
                rf'\1.convs.{number - 1}.weight'
            )
            for number in NUMBERS
        },
    },
    _backbone_cfg,
    reshape=se_as_linear,
)
