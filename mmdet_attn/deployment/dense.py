"""Boxes of dense heads: RetinaNet, ATSS, RTMDet, YOLOX and the RPN."""

from typing import Any

import torch
from torch import Tensor

from mmdet_attn.deployment.boxes import Boxes, best, drop_small, join, suppress


def flat(x: Tensor, columns: int) -> Tensor:
    """A map `(1, k * columns, H, W)` as rows `(H * W * k, columns)`."""
    return x[0].permute(1, 2, 0).reshape(-1, columns).float()


def priors_of(head: Any, maps: list[Tensor], **options: bool) -> list:
    sizes = [x.shape[-2:] for x in maps]
    return head.prior_generator.grid_priors(
        sizes, dtype=torch.float32, device=maps[0].device, **options
    )


def probabilities(head: Any, logits: Tensor) -> Tensor:
    if head.use_sigmoid_cls:
        return logits.sigmoid()
    return logits.softmax(-1)[:, :-1]


def dense_boxes(head: Any, x: tuple, shape: tuple) -> Boxes:
    """As `BaseDenseHead.predict_by_feat` of mmdet.

    Args:
        head: The head.
        x: The maps of the neck.
        shape: Height and width of the image, to which boxes are clipped.
    """
    cfg = head.test_cfg
    logits, deltas, *factors = head(x)
    parts = []
    for level, priors in enumerate(priors_of(head, logits)):
        rows = flat(logits[level], head.cls_out_channels)
        scores = probabilities(head, rows)
        classes = scores.shape[1]
        scores, at = best(scores.flatten(), cfg.nms_pre)
        valid = scores > cfg.get('score_thr', 0)
        row = at // classes
        if factors:
            scores = scores * flat(factors[0][level], 1)[row, 0].sigmoid()
        boxes = head.bbox_coder.decode(
            priors[row], flat(deltas[level], 4)[row], max_shape=shape
        )
        parts.append(Boxes(boxes, scores, at % classes, valid))
    found = drop_small(join(parts), cfg)
    return suppress(found, cfg.nms, cfg.max_per_img)


def proposals(head: Any, x: tuple, shape: tuple) -> Boxes:
    """As `RPNHead.predict_by_feat`: the labels are the levels."""
    cfg = head.test_cfg
    logits, deltas = head(x)
    parts = []
    for level, priors in enumerate(priors_of(head, logits)):
        rows = flat(logits[level], head.cls_out_channels)
        scores, row = best(
            probabilities(head, rows)[:, 0], cfg.get('nms_pre', -1)
        )
        boxes = head.bbox_coder.decode(
            priors[row], flat(deltas[level], 4)[row], max_shape=shape
        )
        labels = torch.full_like(row, level)
        parts.append(Boxes(boxes, scores, labels, scores >= 0))
    found = drop_small(join(parts), cfg)
    return suppress(found, cfg.nms, cfg.max_per_img)


def yolox_boxes(head: Any, x: tuple, shape: tuple) -> Boxes:
    """As `YOLOXHead.predict_by_feat`: a box for each place, not clipped."""
    cfg = head.test_cfg
    logits, deltas, objects = head(x)
    priors = torch.cat(priors_of(head, logits, with_stride=True))
    rows = [flat(level, head.cls_out_channels) for level in logits]
    scores, labels = torch.cat(rows).sigmoid().max(1)
    there = torch.cat([flat(level, 1) for level in objects])[:, 0].sigmoid()
    scores = scores * there
    decoded = head._bbox_decode(
        priors, torch.cat([flat(d, 4) for d in deltas])[None]
    )
    found = Boxes(decoded[0], scores, labels, scores >= cfg.score_thr)
    return suppress(found, cfg.nms, -1)
