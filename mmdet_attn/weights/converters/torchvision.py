"""Plain ResNets of torchvision, whose names MMDetection has too."""

from mmdet_attn.weights.converters.rename import RESNET
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import depth_of

TORCHVISION = Source(
    'torchvision',
    'ImageNet ResNets of torchvision, which have no attention',
    RESNET,
    lambda state: dict(type='mmdet.ResNet', depth=depth_of(state)),
    plain=True,
)
