"""MMDetection 1.x's arithmetic, against its rules written out in numpy."""

import cv2
import numpy as np
import pytest
import torch
from conftest import load_config
from mmcv.ops import batched_nms
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_attn.mmdet1.boxes import to_edges

RNG = np.random.default_rng(0)
SHAPE = (180, 240)  # of the image that the network sees
FAR = np.array([0, 0, 1, 1])  # the last pixel of 1.x, the edge of 3.x
STDS = np.float32([0.1, 0.1, 0.2, 0.2])


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    torch.manual_seed(0)


def released(name='mask_rcnn_r50_eca_k3377'):
    init_default_scope('mmdet')
    return load_config(f'released/{name}').model


def build(cfg, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(cfg, **kwargs)).eval()


def coder(stds=STDS):
    init_default_scope('mmdet')
    kind = dict(type='mmdet_attn.LegacyBoxCoder', target_stds=tuple(stds))
    return TASK_UTILS.build(kind)


def boxes_of(number, low=0.0, high=60.0):
    """Boxes of 1.x in an image of SHAPE; the last is a single pixel."""
    near = RNG.uniform(0, (SHAPE[1] - 2, SHAPE[0] - 2), (number, 2))
    far = near + RNG.uniform(low, high, (number, 2))
    far = np.minimum(far, (SHAPE[1] - 1, SHAPE[0] - 1))
    boxes = np.concatenate([near, far], 1)
    boxes[-1, 2:] = boxes[-1, :2]
    return boxes.astype(np.float32)


# The rules of 1.x.


def decode(boxes, deltas, stds, shape):
    deltas = deltas * np.float32(stds)
    limit = abs(np.log(16 / 1000))
    width = boxes[:, 2] - boxes[:, 0] + 1
    height = boxes[:, 3] - boxes[:, 1] + 1
    x = (boxes[:, 0] + boxes[:, 2]) * 0.5 + width * deltas[:, 0]
    y = (boxes[:, 1] + boxes[:, 3]) * 0.5 + height * deltas[:, 1]
    width = width * np.exp(np.clip(deltas[:, 2], -limit, limit))
    height = height * np.exp(np.clip(deltas[:, 3], -limit, limit))
    x1, x2 = x - width * 0.5 + 0.5, x + width * 0.5 - 0.5
    y1, y2 = y - height * 0.5 + 0.5, y + height * 0.5 - 0.5
    x1, x2 = (np.clip(v, 0, shape[1] - 1) for v in (x1, x2))
    y1, y2 = (np.clip(v, 0, shape[0] - 1) for v in (y1, y2))
    return np.stack([x1, y1, x2, y2], 1)


def nms(boxes, scores, threshold, one=1):
    """Indices that stay, best first; `one` is what a size adds."""
    area = (boxes[:, 2] - boxes[:, 0] + one) * (
        boxes[:, 3] - boxes[:, 1] + one
    )
    left, keep = list(np.argsort(-scores, kind='stable')), []
    while left:
        best = left.pop(0)
        keep.append(best)
        near = np.maximum(boxes[best, :2], boxes[left, :2])
        far = np.minimum(boxes[best, 2:], boxes[left, 2:])
        inter = np.maximum(far - near + one, 0).prod(1)
        iou = inter / (area[best] + area[left] - inter)
        left = [k for k, v in zip(left, iou, strict=True) if v <= threshold]
    return keep


def multiclass_nms(boxes, scores, low, threshold, number):
    """Per class; boxes ``(N, classes, 4)`, scores `(N, classes)``."""
    found = []
    for label in range(scores.shape[1]):
        chosen = np.flatnonzero(scores[:, label] > low)
        for index in nms(
            boxes[chosen, label], scores[chosen, label], threshold
        ):
            row = chosen[index]
            found.append((scores[row, label], label, *boxes[row, label]))
    found = np.array(sorted(found, reverse=True)[:number]).reshape(-1, 6)
    return found[:, 2:], found[:, 0], found[:, 1].astype(int)


def level(boxes, levels=4):
    size = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    found = np.floor(np.log2(np.sqrt(size) / 56 + 1e-6))
    return np.clip(found, 0, levels - 1).astype(int)


def bilinear(feature, y, x):
    height, width = feature.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(feature))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    b, a = y - top, x - left
    return (
        feature[:, top, left] * (1 - b) * (1 - a)
        + feature[:, top, right] * (1 - b) * a
        + feature[:, low, left] * b * (1 - a)
        + feature[:, low, right] * b * a
    )


def roi_align(feature, box, scale, size, samples=2):
    x1, y1 = box[:2] * scale
    x2, y2 = (box[2:] + 1) * scale
    step_y, step_x = max(y2 - y1, 0) / size, max(x2 - x1, 0) / size
    out = np.zeros((len(feature), size, size))
    for row, column, i, j in np.ndindex(size, size, samples, samples):
        y = y1 + (row + (i + 0.5) / samples) * step_y
        x = x1 + (column + (j + 0.5) / samples) * step_x
        out[:, row, column] += bilinear(feature, y, x)
    return out / samples**2


def extract(features, boxes, size):
    return torch.tensor(
        np.stack(
            [
                roi_align(features[k][0].numpy(), box, 1 / (4 * 2**k), size)
                for box, k in zip(boxes, level(boxes), strict=True)
            ]
        ),
        dtype=torch.float32,
    )


def paste(mask, box, shape):
    x1, y1, x2, y2 = box.astype(np.int32)
    w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    image = np.zeros(shape, bool)
    image[y1 : y1 + h, x1 : x1 + w] = cv2.resize(mask, (int(w), int(h))) > 0.5
    return image


def base_anchors(stride, scales, ratios=(0.5, 1, 2)):
    rows = []
    for ratio in ratios:
        for scale in scales:
            w, h = (stride * scale * ratio**p for p in (-0.5, 0.5))
            c = 0.5 * (stride - 1)
            half = np.array([w - 1, h - 1]) / 2
            rows.append([*(c - half), *(c + half)])
    return np.round(np.float32(rows))


def anchors(stride, scales, size):
    return np.concatenate(
        [
            base_anchors(stride, scales) + np.float32([x, y, x, y]) * stride
            for y in range(size[0])
            for x in range(size[1])
        ]
    )


RETINA = [4 * 2 ** (i / 3) for i in range(3)]


def test_deltas():
    """Of each class; the largest change of size is that of 1.x."""
    boxes = boxes_of(30, high=2)
    deltas = RNG.normal(0, 3, (30, 8)).astype(np.float32)
    deltas[:10, 2::4] = 40
    inputs = torch.tensor(boxes), torch.tensor(deltas)
    found = coder().decode(*inputs, max_shape=SHAPE)
    for columns in (slice(4), slice(4, 8)):
        expected = decode(boxes, deltas[:, columns], STDS, SHAPE)
        np.testing.assert_allclose(found[:, columns], expected, atol=1e-3)


def test_annotation_comes_back():
    """x, y, w, h of an annotation, 1.x's box, deltas, and result: the same."""
    xywh = torch.tensor([[3.0, 4.0, 20.0, 30.0], [10.0, 12.0, 1.0, 1.0]])
    truth = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:] - 1], 1)
    proposals = torch.tensor([[0.0, 0.0, 31.0, 15.0], [9.0, 9.0, 12.0, 15.0]])
    deltas = coder().encode(proposals, truth)
    found = coder().decode(proposals, deltas, max_shape=SHAPE)
    torch.testing.assert_close(found, truth)
    found = to_edges(found)
    found[:, 2:] -= found[:, :2]  # as CocoMetric writes it
    torch.testing.assert_close(found, xywh)


def test_coder_keeps_the_box_type():
    legacy = coder()
    legacy.use_box_type = True
    box = torch.tensor([[2.0, 3.0, 8.0, 9.0]])
    found = legacy.decode(HorizontalBoxes(box), torch.zeros(1, 4))
    assert isinstance(found, HorizontalBoxes)
    torch.testing.assert_close(found.tensor, box)


def extractor(size=7, channels=3):
    cfg = released().roi_head.bbox_roi_extractor
    cfg.roi_layer.output_size = size
    return build(cfg, out_channels=channels)


def test_level():
    """112 pixels are x2 - x1 = 111: the second level in 1.x."""
    sides = np.float32([1, 55, 56, 111, 112, 113, 223, 224, 447, 448, 2000])
    boxes = np.stack([sides * 0, sides * 0, sides - 1, sides - 1], 1)
    rois = torch.tensor(np.insert(boxes, 0, 0, axis=1))
    found = extractor().map_roi_levels(rois, 4)
    np.testing.assert_array_equal(found, level(boxes))
    assert found.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3]


def pyramid(channels=3):
    shapes = [(-(-SHAPE[0] // s), -(-SHAPE[1] // s)) for s in (4, 8, 16, 32)]
    return [torch.randn(1, channels, *shape) for shape in shapes]


def test_roi_align():
    """Ends a pixel later, and takes a region of half a cell as it is."""
    features, boxes = pyramid(), boxes_of(30, low=20, high=240)
    boxes[:8, 2:] = boxes[:8, :2] + RNG.uniform(0, 2, (8, 2))
    rois = torch.tensor(np.insert(boxes, 0, 0, axis=1))
    before = rois.clone()
    found = extractor(3)(features, rois)
    assert torch.equal(rois, before)
    assert {0, 1} <= set(level(boxes))
    expected = extract(features, boxes, 3)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_nms_counts_the_last_pixel():
    """By config alone; it matters for boxes of a few pixels."""
    boxes = boxes_of(300, low=12, high=40) / 8
    scores = RNG.permutation(300).astype(np.float32)
    inputs = *map(torch.tensor, (boxes, scores)), torch.zeros(300).long()
    rcnn, retina = released(), released('retinanet_r50_eca_k3377')
    for part in (rcnn.test_cfg.rpn, rcnn.test_cfg.rcnn, retina.test_cfg):
        _, keep = batched_nms(*inputs, part.nms)
        threshold = part.nms.iou_threshold
        assert keep.tolist() == nms(boxes, scores, threshold)
        assert len(keep) < len(nms(boxes, scores, threshold, one=0))


def test_proposals():
    """Per level the best, NMS, then the best of all; no size is too small."""
    cfg = released()
    test_cfg = ConfigDict(cfg.test_cfg.rpn, nms_pre=30, max_per_img=60)
    head = build(cfg.rpn_head, test_cfg=test_cfg, in_channels=4)
    sizes = [(6, 8), (3, 4), (2, 2), (1, 1), (1, 1)]
    scores = [torch.randn(1, 3, *size) for size in sizes]
    deltas = [torch.randn(1, 12, *size) for size in sizes]
    deltas[0][0, ::4] = 9.0  # most of the first level clipped to the edge
    found = head.predict_by_feat(
        scores, deltas, batch_img_metas=[dict(img_shape=SHAPE)], cfg=test_cfg
    )[0]
    boxes, values = [], []
    for k, size in enumerate(sizes):
        score = scores[k][0].permute(1, 2, 0).reshape(-1).sigmoid().numpy()
        delta = deltas[k][0].permute(1, 2, 0).reshape(-1, 4).numpy()
        best = np.argsort(-score, kind='stable')[:30]
        box = decode(
            anchors(4 * 2**k, [8], size)[best], delta[best], [1] * 4, SHAPE
        )
        keep = nms(box, score[best], 0.7)
        boxes.append(box[keep])
        values.append(score[best][keep])
    boxes, values = np.concatenate(boxes), np.concatenate(values)
    best = np.argsort(-values, kind='stable')[:60]
    np.testing.assert_allclose(found.scores, values[best], atol=1e-6)
    np.testing.assert_allclose(found.bboxes, boxes[best], atol=1e-3)
    assert (boxes[:, 0] == boxes[:, 2]).any()  # 3.x would drop these


def roi_head(masks):
    kind = 'mask_rcnn_r50_eca_k3377' if masks else 'faster_rcnn_r50_eca_k5'
    cfg = released(kind)
    head, small = cfg.roi_head, dict(out_channels=3)
    head.bbox_roi_extractor.update(small)
    head.bbox_head.update(in_channels=3, fc_out_channels=16, num_classes=4)
    if masks:
        head.mask_roi_extractor.update(small)
        head.mask_head.update(
            num_convs=1, in_channels=3, conv_out_channels=3, num_classes=4
        )
    test_cfg = ConfigDict(cfg.test_cfg.rcnn, score_thr=0.2, max_per_img=12)
    model = build(head, test_cfg=test_cfg, train_cfg=None)
    for name, parameter in model.named_parameters():
        if 'fc_' in name or 'mask' in name:
            parameter.data.normal_(0, 0.6)
    if masks:  # about as many pixels in a mask as out of it
        for name, parameter in model.mask_head.named_parameters():
            if name.endswith('bias'):
                parameter.data.zero_()
        weight = model.mask_head.conv_logits.weight.data
        weight -= weight.mean(1, keepdim=True)
    return model


@pytest.mark.parametrize('masks', [False, True])
@pytest.mark.parametrize('rescale', [False, True])
@torch.no_grad()
def test_detections(masks, rescale):
    """RoI features to results: boxes back to the image, NMS, masks."""
    head, features = roi_head(masks), pyramid()
    original = (90, 120) if rescale else SHAPE
    boxes = boxes_of(25, low=20, high=150)
    meta = dict(img_shape=SHAPE, ori_shape=(90, 120), scale_factor=(2.0, 2.0))
    sample = DetDataSample(metainfo=meta)
    proposals = [InstanceData(bboxes=torch.tensor(boxes))]
    found = head.predict(features, proposals, [sample], rescale=rescale)[0]

    logits, deltas = head.bbox_head(extract(features, boxes, 7))
    scores = logits.softmax(1).numpy()[:, :4]
    deltas = deltas.numpy().reshape(25, 4, 4)
    decoded = [decode(boxes, deltas[:, c], STDS, SHAPE) for c in range(4)]
    scale = 2 if rescale else 1
    expected, values, labels = multiclass_nms(
        np.stack(decoded, 1) / scale, scores, 0.2, 0.5, 12
    )
    assert len(found) == len(expected) >= 10
    np.testing.assert_allclose(found.scores, values, atol=1e-4)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.bboxes, expected + FAR, atol=1e-2)
    if not masks:
        return
    regions = extract(features, (expected * scale).astype(np.float32), 14)
    chances = head.mask_head(regions).sigmoid().numpy()
    assert found.masks.shape == (len(expected), *original)
    for mask, label, box, ours in zip(
        chances, labels, expected, found.masks.numpy(), strict=True
    ):
        other = paste(mask[label], box, original) != ours
        # A corner that rounds to another pixel moves a row or a column.
        assert other.mean() < 0.002
    area = (expected[:, 2:] - expected[:, :2]).prod(1).sum()
    assert 0.1 < found.masks.sum() / area < 0.9


@pytest.mark.parametrize('masks', [False, True])
@torch.no_grad()
def test_no_detection(masks):
    meta = dict(img_shape=SHAPE, ori_shape=SHAPE, scale_factor=(1.0, 1.0))
    found = roi_head(masks).predict(
        pyramid(),
        [InstanceData(bboxes=torch.zeros(0, 4))],
        [DetDataSample(metainfo=meta)],
        rescale=True,
    )[0]
    assert found.bboxes.shape == (0, 4)
    assert not masks or found.masks.shape == (0, *SHAPE)


@torch.no_grad()
def test_retinanet_detections():
    """The best anchors of a level keep all of their classes."""
    cfg = released('retinanet_r50_eca_k3377')
    test_cfg = ConfigDict(cfg.test_cfg, nms_pre=20, max_per_img=60)
    head = build(cfg.bbox_head, test_cfg=test_cfg, num_classes=3)
    sizes = [(4, 5), (2, 3), (1, 2), (1, 1), (1, 1)]
    scores = [torch.randn(1, 27, *size) for size in sizes]
    deltas = [torch.randn(1, 36, *size) for size in sizes]
    meta = dict(img_shape=SHAPE, scale_factor=(2.0, 2.0))
    inputs = dict(batch_img_metas=[meta], cfg=test_cfg, rescale=True)
    found = head.predict_by_feat(scores, deltas, **inputs)[0]
    boxes, values = [], []
    for k, size in enumerate(sizes):
        score = scores[k][0].permute(1, 2, 0).reshape(-1, 3).sigmoid().numpy()
        delta = deltas[k][0].permute(1, 2, 0).reshape(-1, 4).numpy()
        best = np.argsort(-score.max(1), kind='stable')[:20]
        prior = anchors(8 * 2**k, RETINA, size)[best]
        boxes.append(decode(prior, delta[best], [1] * 4, SHAPE) / 2)
        values.append(score[best])
    boxes, values = np.concatenate(boxes), np.concatenate(values)
    expected, values, labels = multiclass_nms(
        np.repeat(boxes[:, None], 3, 1), values, 0.05, 0.5, 60
    )
    assert len(found) == 60
    np.testing.assert_allclose(found.scores, values, atol=1e-6)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.bboxes, expected + FAR, atol=1e-3)
    raw = head.predict_by_feat(scores, deltas, **inputs, with_nms=False)[0]
    assert len(raw) > 60
