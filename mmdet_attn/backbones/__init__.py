"""A ResNet that takes attention where MMDetection's does not."""

from mmdet_attn.backbones.resnet import AttentionResNet

__all__ = ['AttentionResNet']
