"""Detectors as ONNX files give what MMDetection gives."""

import json
import re

import cv2
import detectors
import mmcv.ops
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT, box_ap, quick_options, run_here, run_tool
from detectors import SIZE, build, config_of
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn
from torch.export import Dim

from mmdet_attn import LegacyRoIAlign, NonLocal, OnnxDetector
from mmdet_attn.commands.export import read_size
from mmdet_attn.deployment.export import (
    OPSET,
    classes_of,
    refuse_free_pooling,
    write_onnx,
)
from mmdet_attn.deployment.graph import Graph
from mmdet_attn.deployment.operators import nms, onnx_nodes, roi_align
from mmdet_attn.deployment.parity import differences
from mmdet_attn.deployment.pipeline import Canvas, canvas_of
from mmdet_attn.deployment.runtime import metadata_of, open_onnx, use_onnx
from mmdet_attn.deployment.supported import refuse_unknown
from mmdet_attn.errors import InputError


def code(page, language):
    """The code blocks of a page of the manual."""
    text = (ROOT / page).read_text(encoding='utf-8')
    return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


EXPORT = 'tools/deployment/export.py'


def sample_of(height, width, scale=(1.0, 1.0)):
    """Of an image that was resized by `scale`."""
    original = round(height / scale[1]), round(width / scale[0])
    return DetDataSample(
        metainfo=dict(
            img_shape=(height, width),
            ori_shape=original,
            scale_factor=scale,
        )
    )


def predict(detector, image, **sample):
    """What a detector of mmdet, or ours, finds in an image (H, W, 3)."""
    batch = dict(
        inputs=[image.permute(2, 0, 1)],
        data_samples=[sample_of(*image.shape[:2], **sample)],
    )
    with torch.no_grad():
        return detector.test_step(batch)[0].pred_instances


def on_canvas(image, canvas):
    if canvas is None:
        return image
    padded = torch.full((canvas.height, canvas.width, 3), 114).to(image.dtype)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


@pytest.mark.parametrize('name', detectors.DETECTORS)
def test_graph_equals_mmdet(name):
    """Every box, score and label, in the same order, whatever the size."""
    detector, canvas = build(name), canvas_of(config_of(name))
    refuse_unknown(detector)
    graph = Graph(detector, canvas)
    for size in ((96, 96), (70, 90)):
        image = detectors.image(*size, seed=1)
        expected = predict(detector, on_canvas(image, canvas))
        assert len(expected) > 20
        with torch.no_grad():
            boxes, scores, labels, *masks = graph(image)
        assert torch.equal(boxes, expected.bboxes)
        torch.testing.assert_close(scores, expected.scores)
        assert torch.equal(labels, expected.labels)
        assert len(masks) == (name == 'MaskRCNN')


class Operators(nn.Module):
    def forward(self, x, boxes, scores):
        rows = nms(boxes, scores, 0.5, 9)
        forms = [
            roi_align(x, boxes, 2, 3, 0.25, samples, 'avg', aligned)
            for samples, aligned in ((0, True), (2, True), (2, False))
        ]
        return rows, torch.stack(forms)


def test_operators_in_onnx():
    """The nodes compute what mmcv computes; a negative score never wins."""
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 16, 16, generator=chance)
    near, size = torch.rand(2, 40, 2, generator=chance) * 40
    boxes = torch.cat([near, near + size], 1)
    scores = torch.rand(40, generator=chance) - 0.3
    program = torch.export.export(Operators(), (x, boxes, scores))
    onnx = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        custom_translation_table=onnx_nodes(),
        input_names=['x', 'boxes', 'scores'],
    )
    kinds = [node.op_type for node in onnx.model.graph]
    assert kinds.count('NonMaxSuppression') == 1
    assert kinds.count('RoiAlign') == 3
    session = onnxruntime.InferenceSession(
        onnx.model_proto.SerializeToString()
    )
    feed = {'x': x, 'boxes': boxes, 'scores': scores}
    rows, forms = session.run(None, {k: v.numpy() for k, v in feed.items()})
    good = (scores >= 0).nonzero()[:, 0]
    _, kept = mmcv.ops.nms(boxes[good], scores[good], 0.5)
    assert rows.tolist() == good[kept][:9].tolist()
    rois = torch.cat([torch.zeros(40, 1), boxes], 1)
    expected = [
        mmcv.ops.roi_align(x, rois, (2, 3), 0.25, samples, 'avg', aligned)
        for samples, aligned in ((0, True), (2, True), (2, False))
    ]
    torch.testing.assert_close(
        torch.from_numpy(forms), torch.stack(expected), rtol=1e-4, atol=1e-4
    )


@pytest.fixture(scope='module')
def padded(tmp_path_factory):
    """An exported RTMDet, whose canvas makes this quick."""
    file = tmp_path_factory.mktemp('onnx') / 'rtmdet.onnx'
    detector, cfg = build('RTMDet'), config_of('RTMDet')
    write_onnx(detector, cfg, detectors.CLASSES, file, (64, SIZE))
    return file, detector, cfg


def test_exported_detector(padded):
    """In the place of a detector of mmdet, boxes rescaled to the image."""
    file, detector, cfg = padded
    image = detectors.image(64, SIZE, seed=1)
    scale = (0.5, 0.4)
    found = predict(OnnxDetector(str(file)), image, scale=scale)
    expected = predict(detector, on_canvas(image, canvas_of(cfg)), scale=scale)
    assert len(expected) > 20
    alone, boxes, scores = differences(found, expected)
    assert alone == 0
    assert boxes.max() < 1e-3
    assert scores.max() < 1e-5


def test_file_says_what_it_is(padded):
    file = padded[0]
    session = open_onnx(file)
    (image,) = session.get_inputs()
    assert (image.name, image.shape) == ('image', [64, SIZE, 3])
    names = [output.name for output in session.get_outputs()]
    assert names == ['boxes', 'scores', 'labels']
    notes = metadata_of(session)
    assert tuple(notes['classes']) == detectors.CLASSES
    assert notes['test_cfg']['nms']['iou_threshold'] == 0.5
    assert notes['scale'] == [SIZE, SIZE]
    # A stack trace would name the folders of whoever exports.
    assert str(ROOT).encode() not in file.read_bytes()


def test_image_of_another_size_is_refused(padded):
    model = OnnxDetector(str(padded[0]))
    for image in (
        detectors.image(SIZE, SIZE),
        detectors.image(64, SIZE).float(),
    ):
        with pytest.raises(InputError, match='takes images of'):
            predict(model, image)


def test_other_thresholds_and_classes_are_refused(padded):
    file = padded[0]
    use_onnx(config_of('RTMDet'), str(file))
    other = config_of('RTMDet')
    other.model.test_cfg.score_thr = 0.1
    with pytest.raises(InputError, match='export it again'):
        use_onnx(other, str(file))
    other = config_of('RTMDet')
    other.model.bbox_head.num_classes = 80
    with pytest.raises(InputError, match=r'has 5 classes .* has 80'):
        use_onnx(other, str(file))


def test_files_that_are_no_detector(tmp_path):
    with pytest.raises(InputError, match='is no ONNX file'):
        open_onnx(tmp_path / 'missing.onnx')
    file = tmp_path / 'plain.onnx'
    torch.onnx.export(
        nn.Identity(), (torch.zeros(1),), file, dynamo=True, verbose=False
    )
    with pytest.raises(InputError, match='not written by'):
        open_onnx(file)


def own(base):
    """A class that predicts in a way of its own."""

    def predict_by_feat(self, *args, **kwargs):
        raise NotImplementedError

    return type(
        f'Own{base.__name__}', (base,), {'predict_by_feat': predict_by_feat}
    )


def set_type(part, kind):
    part.__class__ = kind


REFUSED = {
    'bbox_head: OwnATSSHead': (
        'ATSS',
        lambda d: set_type(d.bbox_head, own(type(d.bbox_head))),
    ),
    'OwnFCNMaskHead': (
        'MaskRCNN',
        lambda d: set_type(
            d.roi_head.mask_head, own(type(d.roi_head.mask_head))
        ),
    ),
    'rpn_head.test_cfg.nms': (
        'FasterRCNN',
        lambda d: d.rpn_head.test_cfg.nms.update(type='soft_nms'),
    ),
    'min_bbox_size must be 0': (
        'ATSS',
        lambda d: d.bbox_head.test_cfg.update(min_bbox_size=3),
    ),
    'nms_pre must be positive': (
        'ATSS',
        lambda d: d.bbox_head.test_cfg.pop('nms_pre'),
    ),
    r"NonLocal\(mode='concatenation'\)": (
        'ATSS',
        lambda d: d.neck.add_module(
            'extra', NonLocal(16, mode='concatenation')
        ),
    ),
    'neck.extra is a DeformConv2d': (
        'ATSS',
        lambda d: d.neck.add_module('extra', mmcv.ops.DeformConv2d(4, 4, 3)),
    ),
    'no SingleRoIExtractor': (
        'FasterRCNN',
        lambda d: set_type(
            d.roi_head.bbox_roi_extractor.roi_layers[0], LegacyRoIAlign
        ),
    ),
    'data_preprocessor is a Identity': (
        'ATSS',
        lambda d: setattr(d, 'data_preprocessor', nn.Identity()),
    ),
}


@pytest.mark.parametrize('message', REFUSED)
def test_what_cannot_be_exported_is_named(message):
    name, change = REFUSED[message]
    detector = build(name)
    change(detector)
    with pytest.raises(InputError, match=message):
        refuse_unknown(detector)


class Pool(nn.Module):
    def __init__(self, cells):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(cells)

    def forward(self, x):
        return self.pool(x)


@pytest.mark.parametrize('cells', [1, 8])
@pytest.mark.parametrize('free', [True, False])
def test_adaptive_pooling_of_free_sizes_is_refused(cells, free):
    shapes = {'x': {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}} if free else None
    x = torch.zeros(1, 4, 20, 28)
    program = torch.export.export(Pool(cells), (x,), dynamic_shapes=shapes)
    if free and cells > 1:
        with pytest.raises(InputError, match=r'to \(8, 8\) cells'):
            refuse_free_pooling(program)
    else:
        refuse_free_pooling(program)


def test_classes():
    """Those of the checkpoint, of the config, of the kind of data set."""
    cfg = config_of('ATSS')
    trained = {'meta': {'dataset_meta': {'classes': ('cell',)}}}
    assert classes_of(cfg, trained) == ('cell',)
    assert classes_of(cfg, {}) == detectors.CLASSES
    del cfg.test_dataloader.dataset['metainfo']
    assert len(classes_of(cfg, {})) == 80


def test_canvas():
    """That of Pad, as the pipeline would make it."""
    cfg = config_of('YOLOX')
    pad = cfg.test_dataloader.dataset.pipeline[2]
    assert canvas_of(cfg) == Canvas(SIZE, SIZE, (114.0,) * 3)
    pad.update(size=None, pad_to_square=True, pad_val=7)
    assert canvas_of(cfg) == Canvas(SIZE, SIZE, (7.0,) * 3)
    pad.update(pad_to_square=False, size_divisor=32)
    with pytest.raises(InputError, match='Pad of the test pipeline'):
        canvas_of(cfg)
    assert canvas_of(config_of('ATSS')) is None


def test_differences():
    def found(boxes, scores, labels):
        return InstanceData(
            bboxes=torch.tensor(boxes),
            scores=torch.tensor(scores),
            labels=torch.tensor(labels),
        )

    one = found([[0.0, 0, 9, 9], [5, 5, 9, 9]], [0.9, 0.8], [0, 1])
    # The first moved, the second of another label, and in another order.
    other = found([[5.0, 5, 9, 9], [0, 0, 9, 9.005]], [0.8, 0.7], [2, 0])
    alone, boxes, scores = differences(one, other)
    assert alone == 2
    assert boxes.tolist() == pytest.approx([0.005], abs=1e-5)
    assert scores.tolist() == pytest.approx([0.2])


def test_size():
    assert read_size(['dynamic']) is None
    assert read_size(['480', '640']) == (480, 640)
    for words in (['480'], ['480', 'x'], ['0', '8'], ['1', '2', '3']):
        with pytest.raises(InputError, match='--size must be'):
            read_size(words)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['out.pth'], 'OUT.onnx must end in .onnx'),
        (['out.onnx', '--launcher', 'slurm'], 'runs in one process'),
        (['out.onnx', '--size', '7'], '--size must be'),
    ],
)
def test_bad_command_lines(options, message):
    config = 'configs/retinanet_r50_eca.py'
    code, output = run_here(EXPORT, config, 'none.pth', *options)
    assert code == 2
    assert message in output


@pytest.mark.slow
@pytest.mark.parametrize('name', detectors.DETECTORS)
def test_onnx_equals_mmdet(name, tmp_path):
    """The file, also at sizes that the export has not seen."""
    detector, cfg = build(name), config_of(name)
    file = tmp_path / 'detector.onnx'
    # To trace a size that is free takes long; two-stage has both parts.
    free = name in (*detectors.PADDED, 'MaskRCNN')
    sizes = [(70, 90), (96, 96), (60, 40)] if free else [(70, 90)]
    size = None if free else sizes[0]
    write_onnx(detector, cfg, detectors.CLASSES, file, size)
    model, canvas = OnnxDetector(str(file)), canvas_of(cfg)
    for size in sizes:
        image = detectors.image(*size, seed=1)
        found = predict(model, image, scale=(0.5, 0.5))
        expected = predict(
            detector, on_canvas(image, canvas), scale=(0.5, 0.5)
        )
        assert differences(found, expected)[0] == 0
        if name == 'MaskRCNN':
            wrong = (found.masks != expected.masks).float().mean()
            assert wrong < 1e-4


@pytest.mark.slow
def test_nothing_is_found(tmp_path):
    """No node fails on empty inputs, masks included."""
    detector, cfg = build('MaskRCNN'), config_of('MaskRCNN')
    detector.roi_head.test_cfg.score_thr = 1.0
    file = tmp_path / 'detector.onnx'
    write_onnx(detector, cfg, detectors.CLASSES, file, (SIZE, SIZE))
    found = predict(OnnxDetector(str(file)), detectors.image(SIZE, SIZE))
    assert found.bboxes.shape == (0, 4)
    assert found.masks.shape == (0, SIZE, SIZE)


@pytest.mark.slow
def test_commands(trained, tmp_path):
    """export --check, test, predict and the manual's example agree."""
    file, work = tmp_path / 'detector.onnx', tmp_path / 'work'
    options = quick_options(trained.data, work)
    # Padding depends on the batch.
    options.append('test_dataloader.batch_size=1')
    inputs = [trained.config, trained.checkpoint]
    output = run_tool(EXPORT, *inputs, file, '--check', *options)
    assert 'without a partner within 0.01 pixel: 0\n' in output
    aps = re.findall(r'bbox AP: (.*) of the checkpoint, (.*) of ONNX', output)
    ap, same = map(float, aps[0])
    assert same == pytest.approx(ap, abs=1e-3)
    output = run_tool('tools/test.py', trained.config, file, *options)
    assert float(box_ap(output)) == pytest.approx(ap, abs=1e-3)
    # The thresholds are in the file.
    output = run_tool(
        'tools/test.py',
        *(trained.config, file, '--data-root', trained.data),
        ok=False,
    )
    assert 'export it again' in output


@pytest.fixture(scope='module')
def masks(tmp_path_factory):
    """An exported Mask R-CNN, its config and an image that fits."""
    folder = tmp_path_factory.mktemp('masks')
    cfg = config_of('MaskRCNN')
    cfg.dump(folder / 'config.py')
    size = 64, SIZE
    write_onnx(
        build('MaskRCNN'),
        cfg,
        detectors.CLASSES,
        folder / 'detector.onnx',
        size,
    )
    picture = detectors.image(128, 2 * SIZE, seed=1).numpy()
    cv2.imwrite(str(folder / 'image.png'), picture)
    return folder


@pytest.mark.slow
def test_predict_and_the_example_of_the_manual(masks, tmp_path):
    """predict.py and the forty lines find the same boxes."""
    inputs = [masks / 'detector.onnx', masks / 'image.png']
    options = ['--out-dir', tmp_path, '--score-thr', 0.3]
    run_tool('tools/predict.py', masks / 'config.py', *inputs, *options)
    found = json.loads((tmp_path / 'preds' / 'image.json').read_text())
    (example,) = code('docs/export.md', 'python')
    assert len(example.splitlines()) <= 45
    script, picture = tmp_path / 'example.py', tmp_path / 'out.png'
    script.write_text(example)
    lines = run_tool(script, *inputs, picture).splitlines()
    assert cv2.imread(str(picture)).shape == (128, 2 * SIZE, 3)
    expected = [
        (name, score, *box)
        for name, score, box in zip(
            found['names'], found['scores'], found['bboxes'], strict=True
        )
        if score >= 0.3
    ]
    assert len(lines) == len(expected) > 10
    for line, (name, *numbers) in zip(lines, expected, strict=True):
        words = line.split()
        assert words[0] == name
        assert [float(w) for w in words[1:]] == pytest.approx(
            numbers, abs=1e-3
        )


@pytest.mark.slow
def test_half_precision(tmp_path):
    """The weights are half as large; what is found is nearly the same."""
    detector, cfg = build('YOLOX'), config_of('YOLOX')
    sizes = []
    for half in (False, True):
        file = tmp_path / f'{half}.onnx'
        size = SIZE, SIZE
        write_onnx(detector, cfg, detectors.CLASSES, file, size, half)
        weights = [
            weight
            for weight in onnx.load(file).graph.initializer
            if len(weight.dims) == 4
        ]
        sizes.append(sum(len(weight.raw_data) for weight in weights))
    assert sizes[1] == sizes[0] / 2 > 0
    image = detectors.image(SIZE, SIZE, seed=1)
    found = predict(OnnxDetector(str(file)), image)
    expected = predict(detector, image)
    best = expected.scores > 0.5
    assert best.sum() > 10
    apart = (expected.bboxes[best][:, None] - found.bboxes).abs().amax(2)
    assert apart.amin(1).max() < 0.5
