"""ECA-Net's released COCO detectors, from MMDetection 1.x to 3.x.

1.x numbers the background 0, 3.x numbers it last; 1.x also computes a box and
a mask for the background, 3.x does not. What has one output per anchor or per
class without a background (RPN, RetinaNet) is the same in both, biases too.
"""

import torch
from mmengine.config import Config
from torch import Tensor

from mmdet_attn.config_files import CONFIGS
from mmdet_attn.errors import InputError
from mmdet_attn.weights.legacy_layout import detector_of

DESCRIPTION = "ECA-Net's COCO detectors (Faster, Mask R-CNN, RetinaNet)"
DEPTHS = {6: 50, 23: 101}  # by the blocks of stage 3


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same detector in the layout of MMDetection 3.x.

    Raises:
        InputError: It is not of MMDetection 1.x, not one of the three
            detectors, has other classes than COCO's 80, or other keys.
    """
    kind = detector_of(state)
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

    Kernel sizes are those of the weights, in one plugin per stage.

    Raises:
        InputError: As in :func:`convert`; or its ResNet is neither the 50 nor
            the 101, or has not one size of ECA in all blocks of a stage.
    """
    kind = detector_of(state)
    stages = [_blocks(state, stage) for stage in range(1, 5)]
    if len(stages[2]) not in DEPTHS:
        raise InputError(
            f'Stage 3 of the backbone has {len(stages[2])} blocks; ECA-Net '
            'released detectors with ResNet-50 (6 blocks) and ResNet-101 '
            '(23). Other weights need a config and no conversion by this.'
        )
    name = f'released/{kind}_r{DEPTHS[len(stages[2])]}_eca_*.py'
    file = next(CONFIGS.glob(name))
    model = Config.fromfile(file).model
    model.backbone.plugins = [
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=sizes[0]),
            stages=tuple(other == stage for other in range(4)),
            position='after_conv3',
        )
        for stage, sizes in enumerate(stages)
    ]
    return model


def _blocks(state: dict[str, Tensor], stage: int) -> list[int]:
    """ECA's kernel size in each block of a stage, all of them equal."""
    prefix = f'backbone.layer{stage}.'
    blocks = {key.split('.')[2] for key in state if key.startswith(prefix)}
    keys = [f'{prefix}{block}.eca.conv.weight' for block in sorted(blocks)]
    missing = [key for key in keys if key not in state]
    if missing or not keys:
        raise InputError(
            f'Stage {stage} of the backbone has {len(blocks)} blocks, '
            f'{len(missing)} without ECA ({", ".join(missing[:3])}); ECA-Net '
            'has it in all. Weights without it need no conversion by this.'
        )
    sizes = [state[key].shape[-1] for key in keys]
    if len(set(sizes)) > 1:
        raise InputError(
            f'Stage {stage} of the backbone has ECA kernel sizes '
            f'{sorted(set(sizes))}; a released detector has one per stage.'
        )
    return sizes
