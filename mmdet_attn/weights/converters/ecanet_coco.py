"""ECA-Net's released COCO detectors, from MMDetection 1.x to 3.x.

1.x numbers the background 0, 3.x numbers it last; 1.x also computes a box and
a mask for the background, 3.x does not. What has one output per anchor or per
class without a background (RPN, RetinaNet) is the same in both, biases too.
"""

import re
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

import mmdet_attn
from mmdet_attn.errors import InputError

DESCRIPTION = "ECA-Net's COCO detectors (Faster, Mask R-CNN, RetinaNet)"
DEPTHS = {6: 50, 23: 101}  # by the blocks of stage 3

# Outputs of the last layers in 1.x: 80 classes, and the background.
ROWS = {
    'bbox_head.fc_cls': 81,
    'bbox_head.fc_reg': 4 * 81,
    'mask_head.conv_logits': 81,
    'bbox_head.retina_cls': 9 * 80,
    'bbox_head.retina_reg': 9 * 4,
}
HEADS = {
    'faster_rcnn': ('bbox_head.fc_cls', 'bbox_head.fc_reg'),
    'mask_rcnn': (
        'bbox_head.fc_cls',
        'bbox_head.fc_reg',
        'mask_head.conv_logits',
    ),
    'retinanet': ('bbox_head.retina_cls', 'bbox_head.retina_reg'),
}


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same detector in the layout of MMDetection 3.x.

    Raises:
        InputError: It is not of MMDetection 1.x, not one of the three
            detectors, has other classes than COCO's 80, or other keys.
    """
    kind = _detector(state)
    if kind == 'retinanet':
        return dict(state)
    result = {}
    for key, value in state.items():
        layer = key.rpartition('.')[0]
        if layer == 'bbox_head.fc_cls':
            value = torch.cat([value[1:], value[:1]])
        elif layer == 'bbox_head.fc_reg':
            value = value[4:].clone()
        elif layer == 'mask_head.conv_logits':
            value = value[1:].clone()
        prefix = 'roi_head.' * key.startswith(('bbox_head.', 'mask_head.'))
        result[prefix + key] = value
    return result


def host(state: dict[str, Tensor]) -> dict:
    """The model config of a released detector, before :func:`convert`.

    Raises:
        InputError: As in :func:`convert`; or its ResNet is neither the 50 nor
            the 101, or has no ECA in every block.
    """
    kind = _detector(state)
    kernels: list[int] = []
    for stage in range(1, 5):
        blocks = {
            key.split('.')[2]
            for key in state
            if key.startswith(f'backbone.layer{stage}.')
        }
        sizes = {
            state[key].shape[-1] if key in state else None
            for block in blocks
            for key in [f'backbone.layer{stage}.{block}.eca.conv.weight']
        }
        if len(sizes) != 1 or None in sizes:
            raise InputError(
                f'Stage {stage} of the backbone has {len(blocks)} blocks with '
                f'the ECA kernel sizes {sorted(map(str, sizes))}; a detector '
                'of ECA-Net has one size in all blocks of a stage, under '
                f'backbone.layer{stage}.*.eca.conv.weight.'
            )
        kernels += sizes
        if stage == 3 and len(blocks) not in DEPTHS:
            raise InputError(
                f'Stage 3 of the backbone has {len(blocks)} blocks; ECA-Net '
                'released detectors with ResNet-50 (6) and ResNet-101 (23).'
            )
        depth = DEPTHS[len(blocks)] if stage == 3 else 0 if stage < 3 else depth
    pattern = f'released/{kind}_r{depth}_eca_*.py'
    model = Config.fromfile(next(_configs().glob(pattern))).model
    model.backbone.plugins = [
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=size),
            stages=tuple(other == stage for other in range(4)),
            position='after_conv3',
        )
        for stage, size in enumerate(kernels)
    ]
    return model
