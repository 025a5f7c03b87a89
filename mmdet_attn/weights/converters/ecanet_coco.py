"""ECA-Net's released COCO detectors, from MMDetection 1.x to 3.x.

The background has number 0 in 1.x and the last number in 3.x. 1.x also
computes a box and a mask for the background, 3.x does not. Layers with one
output per anchor or per class without a background (RPN, RetinaNet) are the
same in both, and so are their biases.
"""

from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmdet_attn.config_files import CONFIGS
from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.ecanet import eca_resnet
from mmdet_attn.weights.converters.mmdet1_layout import detector_of
from mmdet_attn.weights.converters.rename import Rules
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import State
from mmdet_attn.weights.load import backbone_part


def _rules(state: State) -> Rules:
    if detector_of(state) == 'retinanet':
        return {'.*': r'\g<0>'}
    return {
        r'(backbone|neck|rpn_head)\..*': r'\g<0>',
        r'(bbox_head|mask_head)\..*': r'roi_head.\g<0>',
    }


def _without_background(name: str, value: Tensor) -> Tensor:
    layer = name.rpartition('.')[0]
    if layer == 'roi_head.bbox_head.fc_cls':
        return torch.cat([value[1:], value[:1]])
    if layer == 'roi_head.bbox_head.fc_reg':
        return value[4:].clone()
    if layer == 'roi_head.mask_head.conv_logits':
        return value[1:].clone()
    return value


def _detector_cfg(state: State) -> dict[str, Any]:
    """The released config, with the kernel sizes of the weights."""
    kind = detector_of(state)
    backbone = eca_resnet(backbone_part(dict(state)))
    depth = backbone['depth']
    file = next(CONFIGS.glob(f'released/{kind}_r{depth}_eca_*.py'), None)
    if file is None:
        raise InputError(
            f'a {kind} with ResNet-{depth}; ECA-Net released detectors with '
            'ResNet-50 and ResNet-101.'
        )
    model = Config.fromfile(file).model
    model.backbone.plugins = backbone['plugins']
    return model


ECANET_COCO = Source(
    'ecanet-coco',
    "ECA-Net's COCO detectors (Faster, Mask R-CNN, RetinaNet)",
    _rules,
    _detector_cfg,
    reshape=_without_background,
)
