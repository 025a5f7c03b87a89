"""SimAM's own ImageNet networks."""

from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.rules import BLOCK, RESNET, renamed
from mmdet_attn.weights.converters.stages import State, depth_of

DESCRIPTION = 'ImageNet ResNets (50 and deeper) with SimAM of ZjjConan/SimAM'
RULES = {k: v for k, v in RESNET.items() if 'conv[123]' not in k}
RULES |= {
    rf'{BLOCK}\.conv[13]\.weight': r'\g<0>',
    rf'({BLOCK})\.conv2\.0\.weight': r'\1.conv2.weight',
}


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours."""
    return renamed('simam', state, RULES)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('simam', state)
    if depth < 50:
        raise InputError(
            f'simam: a ResNet-{depth}, whose blocks take no other '
            'convolution (dcn) in MMDetection: ResNet-50 and deeper do.'
        )
    return dict(
        type='mmdet.ResNet',
        depth=depth,
        # Their training has 0.1 where the paper has 1e-4.
        dcn=dict(type='mmdet_attn.SimAMConv2d', lambda_=0.1),
        stage_with_dcn=(True, True, True, True),
    )
