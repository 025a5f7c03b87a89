"""EPSANet's own ImageNet networks."""

from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.rules import BLOCK, RESNET, renamed
from mmdet_attn.weights.converters.stages import State, depth_of, require

DESCRIPTION = 'ImageNet EPSANet-50 and -101 (small) of murufeng/EPSANet'
RULES = {k: v for k, v in RESNET.items() if 'conv[123]' not in k}
RULES |= {
    rf'{BLOCK}\.conv[13]\.weight': r'\g<0>',
    rf'({BLOCK}\.conv2\.se\.fc[12]\.(weight|bias))': r'\1',
    **{
        rf'({BLOCK}\.conv2)\.conv_{number}\.weight': (
            rf'\1.convs.{number - 1}.weight'
        )
        for number in (1, 2, 3, 4)
    },
}


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours; the gate's 1x1 convolutions to linear layers."""
    return {
        name: value.flatten(1)
        if name.endswith(('se.fc1.weight', 'se.fc2.weight'))
        else value
        for name, value in renamed('epsanet', state, RULES).items()
    }


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('epsanet', state)
    if depth < 50:
        raise InputError(
            f'epsanet: a ResNet-{depth}, whose blocks take no other '
            'convolution (dcn) in MMDetection: ResNet-50 and deeper do.'
        )
    place = 'layer1.0.conv2'
    convs = [
        require('epsanet', state, f'{place}.conv_{number}.weight')
        for number in (1, 2, 3, 4)
    ]
    planes = require('epsanet', state, 'layer1.0.conv1.weight').shape[0]
    gate = require('epsanet', state, f'{place}.se.fc1.weight')
    return dict(
        type='mmdet.ResNet',
        depth=depth,
        dcn=dict(
            type='mmdet_attn.PSAConv2d',
            kernel_sizes=tuple(conv.shape[-1] for conv in convs),
            groups=tuple(planes // conv.shape[1] for conv in convs),
            reduction=gate.shape[1] // gate.shape[0],
        ),
        stage_with_dcn=(True, True, True, True),
    )
