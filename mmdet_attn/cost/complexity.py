"""Parameters and FLOPs of a detector, counted as in the ECA-Net paper.

The paper used MMDetection's counter of 2019. Its units are:

| operation | units |
|---|---|
| convolution, linear layer | 1 for each multiply-add |
| bias of a convolution | 1 for each element written |
| batch norm | 2 for each element read |
| ReLU | 1 for each element written |
| pooling | 1 for each element read |
| sigmoid, product, RoIAlign, interpolation | 0 |

Only trainable parameters count. The class-wise boxes and masks of a two-stage
detector have a background class, as they had in 2019.
"""

from math import prod
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmdet_attn.errors import InputError

aten = torch.ops.aten
ROIS = {'bbox': 1000, 'mask': 100}


class Complexity(NamedTuple):
    """Parameters in millions, and GFLOPs."""

    params_m: float
    gflops: float


class Dense(nn.Module):
    """The layers of a detector, without proposals, RoIAlign and NMS.

    Those depend on the image. The heads of a two-stage detector see 1000
    boxes and 100 masks instead, as in the paper's count.
    """

    detector: Any

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> list:
        detector = self.detector
        features = detector.extract_feat(image)
        if not hasattr(detector, 'roi_head'):
            return [detector.bbox_head(features)]
        outputs = [detector.rpn_head(features)]
        for name, count in ROIS.items():
            head = getattr(detector.roi_head, f'{name}_head', None)
            if head is not None:
                extractor = getattr(detector.roi_head, f'{name}_roi_extractor')
                size = extractor.roi_layers[0].output_size
                shape = (count, extractor.out_channels, *size)
                outputs.append(head(image.new_zeros(shape)))
        return outputs


def _convolution(x, weight, bias, *args, out_shape, **kwargs) -> int:
    transposed, groups = args[3], args[5]
    positions = prod(out_shape[2:]) * out_shape[0]
    # weight: (in or out, out or in per group, *kernel)
    macs = positions * prod(weight)
    if transposed:
        macs = positions * x[1] * out_shape[1] // groups * prod(weight[2:])
    return macs + (positions * out_shape[1] if bias else 0)


def _written(*args, out_shape, **kwargs) -> int:
    return prod(out_shape)


def _pooling(x, *args, out_shape, **kwargs) -> int:
    shape = out_shape[0] if isinstance(out_shape[0], tuple) else out_shape
    return prod(x) if len(x) == 4 and prod(shape) < prod(x) else 0


def _maximum(x, *args, out_shape, **kwargs) -> int:
    return prod(x)


def _batch_norm(x, *args, out_shape, **kwargs) -> int:
    return 2 * prod(x)


def _matmul(a, b, *args, out_shape, **kwargs) -> int:
    return prod(a) * b[-1]


def _addmm(bias, a, b, *args, out_shape, **kwargs) -> int:
    return _matmul(a, b, out_shape=out_shape)


# Plain relu is left out: the counter of 2019 saw layers, which work in place.
# The RPN's ReLU is a function call.
PAPER = {
    aten.convolution: _convolution,
    aten.mm: _matmul,
    aten.bmm: _matmul,
    aten.addmm: _addmm,
    aten.native_batch_norm: _batch_norm,
    aten._native_batch_norm_legit_no_training: _batch_norm,
    aten.relu_: _written,
    aten.max_pool2d_with_indices: _pooling,
    aten.avg_pool2d: _pooling,
    aten._adaptive_avg_pool2d: _pooling,
    aten.mean: _pooling,
    aten.sum: _pooling,
    aten.max: _maximum,
}


def _add_background(detector: nn.Module) -> None:
    """Give class-wise boxes and masks the background class of 2019."""
    roi_head = getattr(detector, 'roi_head', None)
    box = getattr(roi_head, 'bbox_head', None)
    if box is not None and not box.reg_class_agnostic:
        fc = box.fc_reg
        box.fc_reg = nn.Linear(fc.in_features, fc.out_features + 4)
    mask = getattr(roi_head, 'mask_head', None)
    if mask is not None and not mask.class_agnostic:
        conv = mask.conv_logits
        mask.conv_logits = nn.Conv2d(
            conv.in_channels, conv.out_channels + 1, conv.kernel_size
        )


def flops(network: nn.Module, inputs: Any) -> int:
    """The units of one forward pass, as in the paper's count."""
    counter = FlopCounterMode(display=False, custom_mapping=PAPER)
    with torch.no_grad(), counter:
        network(inputs)
    return counter.get_total_flops()


def complexity(
    cfg: Config,
    shape: tuple[int, int] = (800, 1280),
    convention: str = 'paper',
) -> Complexity:
    """Count one forward pass of a detector for one image.

    Args:
        cfg: A detection config.
        shape: Height and width of the image in pixels.
        convention: `'paper'` (see this file), or `'mmengine'`: mmengine's
            counter on the same layers, and all parameters.

    Raises:
        InputError: The image is smaller than 32 x 32, the convention is
            unknown, or the detector has several heads of a kind.
    """
    if min(shape) < 32:
        raise InputError(f'shape must be at least 32 x 32, got {shape}.')
    if convention not in ('paper', 'mmengine'):
        raise InputError(
            f"convention must be 'paper' or 'mmengine', got {convention!r}."
        )
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # Shapes are enough for us; mmengine traces a real computation.
    device = 'cpu' if convention == 'mmengine' else 'meta'
    # Swin reads numbers out of a tensor while it is built.
    detector = MODELS.build(cfg.model).to(device)
    image = torch.zeros(1, 3, *shape, device=device)
    roi_head = getattr(detector, 'roi_head', detector)
    head = getattr(roi_head, 'bbox_head', None)
    several = isinstance(head, nn.ModuleList) or hasattr(detector, 'decoder')
    if several or not isinstance(head, nn.Module):
        raise InputError(
            f'{cfg.model.type}: only detectors with one dense head, or with '
            'an RPN and one RoI head of each kind, can be counted, and no '
            'DETR.'
        )
    dense = Dense(detector).eval()
    if convention == 'mmengine':
        from mmengine.analysis import get_model_complexity_info

        counted = get_model_complexity_info(
            dense, inputs=image, show_table=False, show_arch=False
        )
        return Complexity(counted['params'] / 1e6, counted['flops'] / 1e9)
    with torch.device(device):
        _add_background(detector)
    trained = [p.numel() for p in detector.parameters() if p.requires_grad]
    return Complexity(sum(trained) / 1e6, flops(dense, image) / 1e9)
