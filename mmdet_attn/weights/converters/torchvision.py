"""Plain ResNets of torchvision, whose names MMDetection has too."""

from typing import Any

from torch import Tensor

from mmdet_attn.weights.converters.rules import RESNET, renamed
from mmdet_attn.weights.converters.stages import State, depth_of

DESCRIPTION = 'ImageNet ResNets of torchvision, which have no attention'
# So a config's modules may be missing, if they start as the identity.
PLAIN = True


def convert(state: State) -> dict[str, Tensor]:
    """Without the classifier; nothing is renamed."""
    return renamed('torchvision', state, RESNET)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    return dict(type='mmdet.ResNet', depth=depth_of('torchvision', state))
