"""Backbones that take attention where those of MMDetection do not."""

from mmdet_attn.backbones.mobilenet_v2 import AttentionMobileNetV2
from mmdet_attn.backbones.resnet import AttentionResNet
from mmdet_attn.backbones.sknet import SKNet

__all__ = ['AttentionMobileNetV2', 'AttentionResNet', 'SKNet']
