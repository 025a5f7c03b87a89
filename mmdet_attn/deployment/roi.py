"""Boxes and masks of the heads that look at regions: R-CNN's."""

from typing import Any

import torch
from torch import Tensor

from mmdet_attn.deployment.boxes import Boxes, suppress
from mmdet_attn.deployment.operators import roi_align


def region_features(extractor: Any, x: tuple, boxes: Tensor) -> Tensor:
    """As `SingleRoIExtractor.forward`: each region from its level."""
    x = x[: extractor.num_inputs]
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    levels = extractor.map_roi_levels(rois, len(x))
    parts, rows = [], []
    for level, layer in enumerate(extractor.roi_layers):
        rows.append((levels == level).nonzero()[:, 0])
        parts.append(
            roi_align(
                x[level].float(),
                boxes[rows[-1]],
                *layer.output_size,
                layer.spatial_scale,
                layer.sampling_ratio,
                layer.pool_mode,
                layer.aligned,
            )
        )
    # Where each region went, in the order of the boxes.
    number = levels.shape[0]
    order = levels * number + torch.arange(number, device=levels.device)
    return torch.cat(parts)[order.argsort().argsort()]


def region_boxes(head: Any, x: tuple, regions: Tensor, shape: tuple) -> Boxes:
    """As `StandardRoIHead.predict_bbox`: a box for each class of a region."""
    cfg, bbox_head = head.test_cfg, head.bbox_head
    logits, deltas = bbox_head(
        region_features(head.bbox_roi_extractor, x, regions)
    )
    scores = logits.float().softmax(-1)[:, :-1]
    classes = scores.shape[1]
    labels = torch.arange(classes, device=scores.device).expand_as(scores)
    each = 1 if bbox_head.reg_class_agnostic else classes
    boxes = bbox_head.bbox_coder.decode(
        regions.repeat_interleave(each, 0),
        deltas.float().reshape(-1, 4),
        max_shape=shape,
    )
    boxes = boxes.reshape(-1, each, 4).expand(-1, classes, 4)
    found = Boxes(
        boxes.reshape(-1, 4),
        scores.flatten(),
        labels.flatten(),
        scores.flatten() > cfg.score_thr,
    )
    return suppress(found, cfg.nms, cfg.max_per_img)


def region_masks(head: Any, x: tuple, boxes: Tensor, labels: Tensor) -> Tensor:
    """The probability of each cell of each box, `(N, h, w)`."""
    logits = head.mask_head(region_features(head.mask_roi_extractor, x, boxes))
    masks = logits.float().sigmoid()
    if head.mask_head.class_agnostic:
        return masks[:, 0]
    at = labels[:, None, None, None].expand(-1, 1, *masks.shape[2:])
    return masks.gather(1, at)[:, 0]
