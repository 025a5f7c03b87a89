"""Refuse what cannot be exported, by its name, before work starts."""

from collections.abc import Iterator
from typing import Any

import mmcv.ops
from mmdet.models import (
    BBoxHead,
    DetDataPreprocessor,
    FCNMaskHead,
    RPNHead,
    SingleStageDetector,
    StandardRoIHead,
    TwoStageDetector,
    YOLOXHead,
)
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import (
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
)

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import NonLocal

# What the graph computes in its own way, and must not be overridden.
STEPS = ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
NMS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


def refuse_unknown(detector: Any) -> None:
    """Refuse a detector that the graph would compute otherwise, or not.

    Raises:
        InputError: A part of it cannot be exported.
    """
    for reason in reasons(detector):
        raise InputError(
            f'export: {reason}. RetinaNet, Faster R-CNN, Mask R-CNN, YOLOX, '
            'RTMDet, ATSS and detectors that predict as they do can be '
            'exported.'
        )


def reasons(detector: Any) -> Iterator[str]:
    """Why a detector cannot be exported."""
    norm = detector.data_preprocessor
    if type(norm) is not DetDataPreprocessor:
        yield f'data_preprocessor is a {type(norm).__name__}'
    for name, module in detector.named_modules():
        kind = type(module)
        # These are operators that ONNX has not.
        if kind.__module__.startswith('mmcv.ops') and (
            kind is not mmcv.ops.RoIAlign
        ):
            yield f'{name} is a {kind.__name__} of mmcv.ops'
        if isinstance(module, NonLocal) and module.mode == 'concatenation':
            yield f"{name} is NonLocal(mode='concatenation')"
    if same(detector, TwoStageDetector, 'predict'):
        yield from of_dense_head(
            'rpn_head', getattr(detector, 'rpn_head', None), RPNHead
        )
        yield from of_roi_head(detector.roi_head)
    elif same(detector, SingleStageDetector, 'predict'):
        head = detector.bbox_head
        base = YOLOXHead if isinstance(head, YOLOXHead) else BaseDenseHead
        yield from of_dense_head('bbox_head', head, base)
    else:
        yield f'{type(detector).__name__} predicts in a way of its own'


def same(thing: Any, base: type, *names: str) -> bool:
    """Whether an object has these methods from a class, unchanged."""
    return all(
        getattr(type(thing), name, None) is getattr(base, name, None)
        for name in names
    )


def of_dense_head(name: str, head: Any, base: type) -> Iterator[str]:
    if not same(head, base, *STEPS) or not head.test_cfg:
        yield f'{name}: {type(head).__name__} predicts in a way of its own'
        return
    cfg = head.test_cfg
    if base is not YOLOXHead:
        yield from of_coder(name, head)
    loss = getattr(head, 'loss_cls', None)  # SSD has none
    if getattr(loss, 'custom_cls_channels', False):
        yield f'{name}.loss_cls has an activation of its own'
    if base is BaseDenseHead and cfg.get('nms_pre', -1) <= 0:
        yield f'{name}.test_cfg.nms_pre must be positive'
    # The graph does not know the scale of the image.
    if base is BaseDenseHead and cfg.get('min_bbox_size', 0) > 0:
        yield f'{name}.test_cfg.min_bbox_size must be 0'
    yield from of_nms(name, cfg.nms)


def of_coder(name: str, head: Any) -> Iterator[str]:
    coder = type(head.bbox_coder)
    if coder not in (DeltaXYWHBBoxCoder, DistancePointBBoxCoder):
        yield f'{name}.bbox_coder is a {coder.__name__}'


def of_nms(name: str, cfg: dict) -> Iterator[str]:
    others = [key for key in cfg if key not in NMS]
    if cfg.get('type') != 'nms' or others:
        yield f'{name}.test_cfg.nms is {dict(cfg)}, and must be plain NMS'


def of_roi_head(head: Any) -> Iterator[str]:
    steps = 'predict', 'predict_bbox', 'predict_mask', '_bbox_forward'
    if not same(head, StandardRoIHead, *steps) or head.with_shared_head:
        yield f'roi_head: {type(head).__name__} predicts in a way of its own'
        return
    pairs = [('bbox', BBoxHead)] + [('mask', FCNMaskHead)] * head.with_mask
    for kind, base in pairs:
        part = getattr(head, f'{kind}_head')
        if not same(part, base, *STEPS):
            yield (
                f'roi_head.{kind}_head: {type(part).__name__} predicts in a '
                'way of its own'
            )
        extractor = getattr(head, f'{kind}_roi_extractor')
        if not same(extractor, SingleRoIExtractor, 'forward') or any(
            type(layer) is not mmcv.ops.RoIAlign
            for layer in extractor.roi_layers
        ):
            yield (
                f'roi_head.{kind}_roi_extractor is no SingleRoIExtractor with '
                'RoIAlign'
            )
    bbox = head.bbox_head
    yield from of_coder('roi_head.bbox_head', bbox)
    if bbox.custom_cls_channels or not (bbox.with_reg and bbox.with_cls):
        yield 'roi_head.bbox_head has no plain scores and boxes'
    yield from of_nms('roi_head', head.test_cfg.nms)
