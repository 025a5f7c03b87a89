"""The two operators of detectors that PyTorch has not, and ONNX has.

Each is an operator of torch, so that `torch.export` keeps it whole, with the
function that writes it as the node of ONNX.
"""

from collections.abc import Callable
from typing import Any

import torch
from mmcv.ops.nms import NMSop
from mmcv.ops.roi_align import roi_align as mmcv_roi_align
from torch import Tensor


@torch.library.custom_op('mmdet_attn::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou: float, count: int) -> Tensor:
    """Indices of the boxes `(N, 4)` that are kept, the best score first.

    Args:
        boxes: The boxes.
        scores: Their scores. A box whose score is negative is left out.
        iou: A box goes if it overlaps a better one by more than this.
        count: Keep at most so many.
    """
    rows = (scores >= 0).nonzero()[:, 0]
    return rows[NMSop.apply(boxes[rows], scores[rows], iou, 0, 0.0, count)]


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float, count: int) -> Tensor:
    return scores.new_empty(
        torch.library.get_ctx().new_dynamic_size(min=1), dtype=torch.int64
    )


@torch.library.custom_op('mmdet_attn::roi_align', mutates_args=())
def roi_align(
    x: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    scale: float,
    samples: int,
    mode: str,
    aligned: bool,
) -> Tensor:
    """Features `(N, C, height, width)` of boxes `(N, 4)` in a map.

    Args:
        x: The map, `(1, C, H, W)`.
        boxes: The boxes.
        height: Bins along y.
        width: Bins along x.
        scale: Size of the map over that of the image.
        samples: Samples per bin along each axis; 0 is as many as it has cells.
        mode: `'avg'` or `'max'`.
        aligned: Whether the centre of the first cell is at half a cell.
    """
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    size = height, width
    return mmcv_roi_align(x, rois, size, scale, samples, mode, aligned)


@roi_align.register_fake
def _(x: Tensor, boxes: Tensor, height: int, width: int, *_: Any) -> Tensor:
    return x.new_empty(boxes.shape[0], x.shape[1], height, width)


def onnx_nodes() -> dict[Callable, Callable]:
    """What writes each operator, for `torch.onnx.export`."""
    import onnxscript

    op: Any = onnxscript.opset18

    def write_nms(boxes: Any, scores: Any, iou: float, count: int) -> Any:
        picked = op.NonMaxSuppression(
            op.Unsqueeze(boxes, [0]),
            op.Unsqueeze(scores, [0, 1]),
            [count],
            [iou],
            [-0.5],
        )
        return op.Gather(picked, 2, axis=1)

    def write_roi_align(
        x: Any,
        boxes: Any,
        height: int,
        width: int,
        scale: float,
        samples: int,
        mode: str,
        aligned: bool,
    ) -> Any:
        number = op.Shape(boxes, start=0, end=1)
        return op.RoiAlign(
            x,
            boxes,
            op.Expand(0, number),
            coordinate_transformation_mode='half_pixel'
            if aligned
            else 'output_half_pixel',
            mode=mode,
            output_height=height,
            output_width=width,
            sampling_ratio=samples,
            spatial_scale=scale,
        )

    return {
        torch.ops.mmdet_attn.nms.default: write_nms,
        torch.ops.mmdet_attn.roi_align.default: write_roi_align,
    }
