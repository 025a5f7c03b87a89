"""Choose among boxes, as MMDetection does, in operations that ONNX has."""

from typing import NamedTuple

import torch
from mmengine.config import ConfigDict
from torch import Tensor

from mmdet_attn.deployment.operators import nms


class Boxes(NamedTuple):
    """Boxes `(N, 4)` with their scores and labels, and which of them count."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor

    def take(self, rows: Tensor) -> 'Boxes':
        return Boxes(*(column[rows] for column in self))


def join(parts: list[Boxes]) -> Boxes:
    return Boxes(*map(torch.cat, zip(*parts, strict=True)))


def best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The best scores and where they are, at most so many; all for -1."""
    there = scores.shape[0]
    return scores.topk(torch.sym_min(there, number) if number > 0 else there)


def drop_small(found: Boxes, cfg: ConfigDict) -> Boxes:
    """As `min_bbox_size` of a config says."""
    smallest = cfg.get('min_bbox_size', -1)
    if smallest < 0:
        return found
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    valid = found.valid & (sizes > smallest).all(1)
    return found._replace(valid=valid)


def suppress(found: Boxes, cfg: ConfigDict, count: int) -> Boxes:
    """NMS within each label, by moving the labels apart, as mmcv does.

    Args:
        found: The boxes.
        cfg: `nms` of a config.
        count: Keep at most so many; -1 is all.
    """
    boxes = found.boxes
    if not cfg.get('class_agnostic', False):
        zero = torch.zeros_like(boxes)
        far = torch.where(found.valid[:, None], boxes, zero).max() + 1
        boxes = boxes + (found.labels.to(boxes) * far)[:, None]
    scores = torch.where(found.valid, found.scores, -1.0)
    count = count if count > 0 else 2**31 - 1
    return found.take(nms(boxes, scores, float(cfg.iou_threshold), count))
