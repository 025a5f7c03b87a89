"""A detector as one function of an image, that `torch.export` can follow."""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models import YOLOXHead
from torch import Tensor, nn

from mmdet_attn.deployment.dense import dense_boxes, proposals, yolox_boxes
from mmdet_attn.deployment.pipeline import Canvas
from mmdet_attn.deployment.roi import region_boxes, region_masks


class Graph(nn.Module):
    """From an image as OpenCV reads it to boxes, scores, labels and masks.

    Args:
        detector: A detector of mmdet that `refuse_unknown` accepts.
        canvas: What the image is padded to.
        half: Whether the network computes in half precision.
    """

    detector: Any

    def __init__(
        self,
        detector: nn.Module,
        canvas: Canvas | None = None,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.canvas = canvas
        self.amp = half

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            image: `(H, W, 3)`, uint8: blue, green, red.

        Returns:
            Boxes `(N, 4)` in pixels of the image, scores `(N,)`, labels
            `(N,)` and, of Mask R-CNN, masks `(N, h, w)` inside of the boxes.
        """
        x = image.permute(2, 0, 1)[None].float()
        if self.canvas:
            x = self._on_canvas(x, self.canvas)
        shape = x.shape[2:]
        x = self._normalised(x)
        with torch.autocast('cpu', torch.float16, enabled=self.amp):
            found, *masks = self._detect(x, shape)
        return (found.boxes, found.scores, found.labels, *masks)

    def _detect(self, x: Tensor, shape: tuple) -> tuple[Any, ...]:
        detector = self.detector
        maps = detector.extract_feat(x)
        if not hasattr(detector, 'roi_head'):
            head = detector.bbox_head
            find = yolox_boxes if isinstance(head, YOLOXHead) else dense_boxes
            return (find(head, maps, shape),)
        head = detector.roi_head
        regions = proposals(detector.rpn_head, maps, shape).boxes
        found = region_boxes(head, maps, regions, shape)
        if not head.with_mask:
            return (found,)
        return found, region_masks(head, maps, found.boxes, found.labels)

    def _on_canvas(self, x: Tensor, canvas: Canvas) -> Tensor:
        """Pad as `Pad` of the pipeline does, before the normalisation."""
        colour = x.new_tensor(canvas.colour)[:, None, None]
        height, width = x.shape[2:]
        margin = 0, canvas.width - width, 0, canvas.height - height
        return F.pad(x - colour, margin) + colour

    def _normalised(self, x: Tensor) -> Tensor:
        """As mmdet's data preprocessor, whose padding is not traceable."""
        norm = self.detector.data_preprocessor
        if norm._channel_conversion:
            x = x.flip(1)
        if norm._enable_normalize:
            x = (x - norm.mean) / norm.std
        down, right = (-size % norm.pad_size_divisor for size in x.shape[2:])
        return F.pad(x, (0, right, 0, down), value=norm.pad_value)
