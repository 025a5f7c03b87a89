"""ECA-Net's released COCO detectors, from MMDetection 1.x to 3.x.

The background has number 0 in 1.x and the last number in 3.x. 1.x also
computes a box and a mask for the background, 3.x does not. Layers with one
output per anchor or per class without a background (RPN, RetinaNet) are the
same in both, and so are their biases.
"""

from typing import Any

import torch
from torch import Tensor

from mmdet_attn.config_files import CONFIGS, load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.ecanet import eca_resnet
from mmdet_attn.weights.converters.source import Rules, Source
from mmdet_attn.weights.infer_backbone import State
from mmdet_attn.weights.load import backbone_part

# Rows of the last layers: 80 classes, and where 1.x has it the background.
_BOX = {'bbox_head.fc_cls': 81, 'bbox_head.fc_reg': 4 * 81}
HEADS = {
    'faster_rcnn': _BOX,
    'mask_rcnn': {**_BOX, 'mask_head.conv_logits': 81},
    'retinanet': {'bbox_head.retina_cls': 9 * 80, 'bbox_head.retina_reg': 36},
}


def detector_of(state: State) -> str:
    """Name the detector of `HEADS` that the weights belong to.

    Raises:
        InputError: They are of none, not of 1.x or not of the 80 classes of
            COCO.
    """
    kind = 'faster_rcnn'
    if any(key.startswith('mask_head.') for key in state):
        kind = 'mask_rcnn'
    elif any(key.startswith('bbox_head.retina_') for key in state):
        kind = 'retinanet'
    for layer, rows in HEADS[kind].items():
        for key in (f'{layer}.weight', f'{layer}.bias'):
            found = len(state.get(key, ()))
            if found != rows:
                raise InputError(
                    f'{key} has {found} rows, where a {kind} of MMDetection '
                    f'1.x has {rows} for the 80 classes of COCO. Weights of '
                    '2.x and 3.x are converted already: load them as they '
                    'are. Those of other detectors and classes cannot be '
                    'converted.'
                )
    return kind


def _rules(state: State) -> Rules:
    if detector_of(state) == 'retinanet':
        return {r'(backbone|neck|bbox_head)\b\S*': r'\g<0>'}
    return {
        r'(backbone|neck|rpn_head)\b\S*': r'\g<0>',
        r'(bbox_head|mask_head)\b\S*': r'roi_head.\g<0>',
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
    model = load_config_file(file).model
    model.backbone.plugins = backbone['plugins']
    return model


ECANET_COCO = Source(
    'ecanet-coco',
    "ECA-Net's COCO detectors (Faster, Mask R-CNN, RetinaNet)",
    _rules,
    _detector_cfg,
    reshape=_without_background,
)
