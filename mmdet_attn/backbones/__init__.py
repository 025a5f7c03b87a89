"""ResNets that take attention where MMDetection's do not."""

from mmdet_attn.backbones.resnet import AttentionResNet
from mmdet_attn.backbones.sknet import SKNet

__all__ = ['AttentionResNet', 'SKNet']
