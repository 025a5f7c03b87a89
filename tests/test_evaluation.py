"""Our COCO metric has mmdet's numbers, whichever engine is behind it."""

import contextlib
import copy
import gc
import io
import json
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import need_shared
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import METRICS as ROOT_METRICS
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmdet_attn import FastCocoMetric
from mmdet_attn.datasets.shapes import run_lengths
from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.config import coco_metrics, set_eval_backend
from mmdet_attn.evaluation.engine import find_evaluator
from mmdet_attn.evaluation.report import statistics, table
from mmdet_attn.study.matches import ap, matches_of

ENGINES = ('faster', 'pycocotools')
SIZE = 64
# Ids with gaps, in both sets.
IMAGES = [dict(id=7 * i + 3, width=SIZE, height=SIZE) for i in range(6)]
CATEGORIES = [dict(id=3 * i + 1, name=f'c{i}') for i in range(4)]


KINDS = ('bbox', 'segm')


def index(truth):
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def run(engine, truth, found, iou_type, **params):
    """A COCOeval that has run, on copies: both engines write into them."""
    found = copy.deepcopy(found)
    if iou_type == 'segm':
        found = [{k: v for k, v in o.items() if k != 'bbox'} for o in found]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = index(truth)
        evaluator = find_evaluator(engine)(coco, coco.loadRes(found), iou_type)
        for name, value in {'maxDets': [100, 300, 1000], **params}.items():
            setattr(evaluator.params, name, value)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def assert_same(truth, found, iou_type, **params):
    """All statistics and curves of the two engines; pycocotools' run."""
    ours, reference = (
        run(engine, truth, found, iou_type, **params) for engine in ENGINES
    )
    for name in ('precision', 'recall', 'scores'):
        np.testing.assert_allclose(
            ours.eval[name], reference.eval[name], rtol=0, atol=1e-9
        )
    np.testing.assert_allclose(ours.stats, reference.stats, 0, 1e-9)
    assert statistics(ours) == pytest.approx(statistics(reference), abs=1e-9)
    return reference


def segmentation(box, form):
    """A box as a mask in one of the forms that annotation files have."""
    x, y, w, h = box
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if form == 'polygon':
        return polygon
    code = rle.merge(rle.frPyObjects(polygon, SIZE, SIZE))
    if form == 'compressed':
        return {**code, 'counts': code['counts'].decode()}
    return run_lengths(rle.decode(code).astype(bool))


def random_truth(seed):
    """Crowds, masks of every form, areas of every size, empty images."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image in IMAGES:
        for _ in range(rng.integers(0, 5)):
            near = rng.integers(0, SIZE - 8, 2).astype(float)
            size = np.minimum(rng.integers(1, SIZE, 2), SIZE - near)
            box = [*near, *size]
            form = rng.choice(['polygon', 'compressed', 'uncompressed'])
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image['id'],
                category_id=3 * int(rng.integers(0, 3)) + 1,
                bbox=box,
                area=float(size.prod() * rng.choice([1, 0.5, 40, 900])),
                iscrowd=int(rng.random() < 0.2),
                segmentation=segmentation(box, form),
            )
            annotations.append(annotation)
    return dict(images=IMAGES, categories=CATEGORIES, annotations=annotations)


def detect(truth, seed=0):
    """Detections near real objects; some wrong, twice, flat, or tied."""
    rng, coco = np.random.default_rng(seed), index(truth)
    classes = [c['id'] for c in truth['categories']]
    found, same_size = [], defaultdict(list)
    for image in truth['images']:
        same_size[image['height'], image['width']].append(image['id'])
    for one in truth['annotations']:
        for _ in range(rng.integers(0, 5)):
            far = 40 if rng.random() < 0.2 else 4
            mask = coco.annToMask(one)
            mask = np.roll(mask, rng.integers(-far, far, 2), (0, 1))
            code = rle.encode(np.asfortranarray(mask, np.uint8))
            box = one['bbox'] * rng.normal(1, far / 80, 4)
            image, category = one['image_id'], one['category_id']
            if rng.random() < 0.2:
                category = int(rng.choice(classes))
            if rng.random() < 0.1:
                image = int(rng.choice(same_size[mask.shape]))
            detection = dict(
                image_id=image,
                category_id=category,
                bbox=(box * [1, 1, rng.random() > 0.05, 1]).tolist(),
                segmentation={**code, 'counts': code['counts'].decode()},
                score=round(float(rng.random()), 1),
            )
            found.append(detection)
    return found


def random_case(seed):
    truth = random_truth(seed)
    return truth, detect(truth, seed)


# The pairs that others printed AP of.


@pytest.mark.parametrize(
    ('folder', 'kind'),
    [
        ('cocoapi_val2014_fake100', 'bbox'),
        ('cocoapi_val2014_fake100', 'segm'),
        ('padilla_coco_bbox_area', 'bbox'),
        ('torchmetrics_coco10', 'bbox'),
    ],
)
def test_published_numbers(folder, kind):
    root = need_shared('eval_pairs') / folder
    published = json.loads((root / 'PUBLISHED.json').read_text())[kind]
    truth, found = (
        json.loads((root / published[name]).read_text())
        for name in ('gt', 'dt')
    )
    done = run('faster', truth, found, kind, maxDets=[1, 10, 100])
    digits = dict(printed_3dp=5e-4, printed_6dp=1e-6, full_precision=1e-9)
    stated = digits.keys() & published.keys()
    assert stated
    for key in stated:
        np.testing.assert_allclose(done.stats, published[key], 0, digits[key])
    for name in ('AP', 'AR100'):
        by_class = published.get(f'{name}_per_class', {})
        for k, category in enumerate(truth['categories'] if by_class else ()):
            value = statistics(done, k)[name]
            expected = by_class[category['name']]
            value = -1 if value is None else value
            assert value == pytest.approx(expected, abs=5e-4), category
    assert_same(truth, found, kind)


# The same numbers as pycocotools, on real and random sets.


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_photographs(split):
    file = need_shared('coco_cc') / f'annotations/instances_{split}.json'
    truth = json.loads(file.read_text())
    assert any(a['iscrowd'] for a in truth['annotations'])
    found = detect(truth)
    for kind in KINDS:
        stats = assert_same(truth, found, kind).stats
        assert ((stats > 0.02) & (stats < 0.95)).all()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'params',
    [
        {},
        dict(maxDets=[3, 1, 2]),
        dict(maxDets=[1, 3, 5], useCats=0),
        dict(iouThrs=np.array([0.3, 0.5, 1.0])),
        dict(imgIds=[10, 3, 24], catIds=[7, 1, 10]),
        dict(catIds=[7, 4], useCats=0),
    ],
)
def test_random_sets(params, kind):
    for seed in range(6):
        assert_same(*random_case(seed), kind, **params)


def change(key, value):
    def edit(truth, found):
        for i, one in enumerate(truth['annotations']):
            one[key] = value(i) if callable(value) else value

    return edit


def change_images(convert):
    def edit(truth, found):
        for image in truth['images']:
            image['id'] = convert(image['id'])
        for one in [*truth['annotations'], *found]:
            one['image_id'] = convert(one['image_id'])

    return edit


def change_found(**values):
    def edit(truth, found):
        for one in found[::3]:
            one.update(values)

    return edit


CORNERS = {
    'negative ids': change('id', lambda i: -i - 1),
    'fractional ids': change('id', lambda i: i + 0.5),
    'large ids': change('id', lambda i: i + 2**53 + 1),
    'repeated ids': change('id', lambda i: i // 2 + 1),
    'all crowd': change('iscrowd', 1),
    'crowd as bool': change('iscrowd', lambda i: i % 3 == 0),
    'ignore': change('ignore', 1),
    'unknown classes': change('category_id', lambda i: (1, 4, 99)[i % 3]),
    'unknown images': change('image_id', lambda i: (3, 10, 99)[i % 3]),
    'area NaN': change('area', float('nan')),
    'huge areas': change('area', 2e10),
    'stray keys': change('rle', 'x'),
    'images by name': change_images(str),
    'images by fraction': change_images(float),
    'large image ids': change_images(lambda i: i + 2**40),
    'stray keys of results': change_found(drop=True, lvis_mark=True),
    'infinite scores': change_found(score=float('inf')),
    'results of unknown classes': change_found(category_id=99),
    'inverted boxes': change_found(bbox=[5.0, 5.0, -3.0, 4.0]),
    'nothing true': lambda truth, found: truth['annotations'].clear(),
    'categories backwards': lambda truth, found: truth['categories'].reverse(),
}


@pytest.mark.parametrize('corner', CORNERS)
def test_corners(corner):
    truth, found = copy.deepcopy(random_case(1))
    CORNERS[corner](truth, found)
    for kind in KINDS:
        assert_same(truth, found, kind)
        assert_same(truth, found, kind, useCats=0)


@pytest.mark.filterwarnings('ignore:Found annotation id 0')
def test_id_zero_is_no_match():
    """pycocotools takes it for none; so does the other engine."""
    truth, found = copy.deepcopy(random_case(1))
    expected = assert_same(truth, found, 'bbox').stats[0]
    scores = []
    for one in truth['annotations']:
        number, one['id'] = one['id'], 0
        scores.append(assert_same(truth, found, 'bbox').stats[0])
        one['id'] = number
    assert min(scores) < expected


def test_only_ap_over_all_classes_stops_at_100():
    """mmdet's names for pycocotools' numbers; the reports say the same."""
    box = [1.0, 1.0, 20.0, 20.0]
    one = dict(image_id=3, category_id=1, bbox=box)
    truth = dict(
        images=IMAGES[:1],
        categories=CATEGORIES[:1],
        annotations=[{**one, 'id': 1, 'area': 400.0, 'iscrowd': 0}],
    )
    wrong = {**one, 'bbox': [40.0, 40.0, 20.0, 20.0]}
    found = [{**wrong, 'score': 0.9}] * 150 + [{**one, 'score': 0.1}]
    assert_same(truth, found, 'bbox')
    done = run('faster', truth, found, 'bbox')
    everything, category = statistics(done), statistics(done, 0)
    assert everything['AP'] == done.stats[0] == 0
    assert everything['AR100'] == category['AR100'] == 0
    for name in ('AP50', 'APs'):
        assert everything[name] == category[name] == pytest.approx(1 / 151)
    assert category['AP'] == pytest.approx(1 / 151)
    assert everything['AR300'] == category['AR300'] == 1


@pytest.mark.parametrize(
    'values', [{'score': float('nan')}, {'bbox': [1.0, float('inf'), 2, 2]}]
)
def test_not_numbers_are_refused(values):
    """The engines differ there: pycocotools matches them somehow."""
    truth, found = copy.deepcopy(random_case(1))
    change_found(**values)(truth, found)
    with pytest.raises(InputError, match=r'image \d+: .* not a number'):
        run('faster', truth, found, 'bbox')
    run('pycocotools', truth, found, 'bbox')


def test_garbage_is_collected_afterwards(monkeypatch):
    from mmdet_attn.evaluation import faster

    during = []

    def fail(self):
        during.append(gc.isenabled())
        raise RuntimeError('no memory')

    monkeypatch.setattr(faster.COCOeval_faster, 'evaluate', fail)
    with pytest.raises(RuntimeError, match='no memory'):
        run('faster', *random_case(1), 'bbox')
    assert during == [False]
    assert gc.isenabled()


# The metric beside mmdet's, from the same predictions.


@pytest.fixture(scope='module')
def predicted(shapes):
    """Annotation file, classes, and what a detector would hand over."""
    file = shapes / 'annotations/instances_train.json'
    truth = json.loads(file.read_text())
    found = detect(truth, seed=1)
    samples = []
    for image in truth['images']:
        own, true = (
            [one for one in rows if one['image_id'] == image['id']]
            for rows in (found, truth['annotations'])
        )
        boxes = torch.tensor([o['bbox'] for o in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [rle.decode(o['segmentation']) for o in own]
        masks = np.array(masks, bool).reshape(-1, 96, 96)
        labels = torch.tensor([o['category_id'] for o in own]).long() - 1
        instances = dict(
            bboxes=boxes,
            scores=torch.tensor([o['score'] for o in own]),
            labels=labels,
            masks=torch.from_numpy(masks),
        )
        instances_true = []
        for one in true:
            box = np.add(one['bbox'], [0, 0, *one['bbox'][:2]]).tolist()
            label = one['category_id'] - 1
            instances_true.append(dict(bbox=box, bbox_label=label))
        sample = dict(img_id=image['id'], ori_shape=(96, 96))
        sample |= dict(pred_instances=instances, instances=instances_true)
        samples.append(sample)
    return file, [c['name'] for c in truth['categories']], samples


def score(metric, classes, samples):
    """What a metric says of predictions, and nothing on the screen."""
    metric.dataset_meta = dict(classes=classes)
    with contextlib.redirect_stdout(io.StringIO()):
        for sample in samples:
            metric.process({}, [copy.deepcopy(sample)])
        return metric.evaluate(len(samples))


@pytest.mark.parametrize(
    'options',
    [
        dict(metric='bbox'),
        dict(metric=['bbox', 'segm'], classwise=True),
        dict(metric='proposal'),
        dict(metric=['proposal', 'segm']),
        dict(metric='bbox', metric_items=['mAP_50', 'AR@100', 'AR_s@1000']),
        dict(metric='proposal', metric_items=['AR@300']),
        dict(metric='bbox', iou_thrs=np.array([0.3, 0.6])),
        dict(metric='segm', iou_thrs=np.array([0.5, 0.75])),
        dict(metric='bbox', proposal_nums=(1, 2, 100)),
        dict(metric='bbox', proposal_nums=(1, 2, 3)),  # mAP -1: no 100
        dict(metric='bbox', prefix='val', sort_categories=True),
        dict(metric='bbox', ann_file=None),
        dict(metric=['proposal_fast', 'bbox'], ann_file=None),
    ],
    ids=str,
)
def test_same_as_mmdet_s_metric(predicted, options):
    file, classes, samples = predicted
    if 'proposal_fast' in options['metric']:  # numpy 2 fails on several
        samples = samples[:1]
    options = dict(ann_file=str(file)) | options
    expected = score(CocoMetric(**options), classes, samples)
    assert expected
    for engine in ENGINES:
        metric = FastCocoMetric(**options, backend=engine)
        for _ in range(2):  # as after every epoch, on the same truth
            found = score(metric, classes, samples)
            np.testing.assert_equal(found, expected)


@pytest.mark.parametrize('thresholds', [0.5, [0.5, 0.75]])
def test_thresholds_of_a_config(predicted, thresholds):
    """A number or a list, with which mmdet's metric fails at the end."""
    file, *rest = predicted
    expected, found = (
        FastCocoMetric(ann_file=str(file), iou_thrs=value)
        for value in (np.array(thresholds, ndmin=1), thresholds)
    )
    assert score(found, *rest) == score(expected, *rest)
    assert found.report['bbox']['all']['AP50'] > 0.1


def test_results_to_submit(predicted, tmp_path):
    file, classes, samples = predicted
    written = []
    options = dict(ann_file=str(file), metric=list(KINDS), format_only=True)
    for cls in (CocoMetric, FastCocoMetric):
        prefix = str(tmp_path / cls.__name__)
        metric = cls(**options, outfile_prefix=prefix)
        assert score(metric, classes, samples) == {}
        files = [f'{prefix}.{kind}.json' for kind in KINDS]
        written.append([json.loads(Path(f).read_text()) for f in files])
    assert written[0] == written[1]
    assert len(written[0][0]) > 20


@pytest.mark.parametrize('cls', [CocoMetric, FastCocoMetric])
def test_what_is_missing_in_predictions(predicted, cls):
    file, classes, samples = predicted
    empty, boxes = copy.deepcopy(samples), copy.deepcopy(samples)
    for nothing, without_masks in zip(empty, boxes, strict=True):
        found = nothing['pred_instances']
        nothing['pred_instances'] = {k: v[:0] for k, v in found.items()}
        del without_masks['pred_instances']['masks']
    both = cls(ann_file=str(file), metric=['bbox', 'segm'])
    assert score(both, classes, empty) == {}
    with pytest.raises(KeyError, match='segm'):
        score(cls(ann_file=str(file), metric='segm'), classes, boxes)


def test_report_and_table(predicted):
    file, classes, samples = predicted
    metric = FastCocoMetric(
        ann_file=str(file), metric=['bbox', 'segm'], classwise=True
    )
    metric.keep = True
    with mock.patch.object(MMLogger, 'info') as info:
        found = score(metric, classes, samples)
    logged = [call.args[0].strip() for call in info.call_args_list]
    json.loads(json.dumps(metric.report, allow_nan=False))
    assert metric.report['backend'] == 'faster'
    assert metric.report['images'] == len(samples)
    for kind in KINDS:
        part = metric.report[kind]
        assert list(part['classes']) == classes
        matched = matches_of(metric.evaluators[kind])
        assert ap(matched) == pytest.approx(part['all']['AP'], abs=1e-12)
        assert round(part['all']['AP'], 3) == found[f'coco/{kind}_mAP']
        assert round(part['all']['APs'], 3) == found[f'coco/{kind}_mAP_s']
        # 96 pixels a side: no image has an object of more than 96 x 96.
        assert part['all']['APl'] is part['all']['ARl'] is None
        for name in ('AP75', 'APs', 'AR100', 'AR1000', 'ARs'):
            rows = [row[name] for row in part['classes'].values()]
            mean = np.mean([value for value in rows if value is not None])
            assert part['all'][name] == pytest.approx(mean, abs=1e-12)
        assert table(kind, part) in logged
        head, *rows = [
            [cell.strip() for cell in line.strip('|').split('|')]
            for line in table(kind, part).splitlines()
            if line.startswith('|')
        ]
        for name, *cells in rows:
            values = {**part['classes'], 'all': part['all']}[name]
            for column, cell in zip(head[1:], cells, strict=True):
                value = values[column]
                assert cell == ('-' if value is None else f'{value:.3f}')


def test_classes_keep_their_names(predicted, tmp_path):
    """Categories need not stand in the order of their ids."""
    file, classes, samples = predicted
    sound = FastCocoMetric(ann_file=str(file), classwise=True)
    expected = score(sound, classes, samples)
    content = json.loads(file.read_text())
    content['categories'].reverse()
    turned = tmp_path / 'turned.json'
    turned.write_text(json.dumps(content))
    samples = copy.deepcopy(samples)
    for sample in samples:  # as CocoDataset numbers them
        labels = sample['pred_instances']['labels']
        sample['pred_instances']['labels'] = len(classes) - 1 - labels
    for engine in ENGINES:
        metric = FastCocoMetric(
            ann_file=str(turned), classwise=True, backend=engine
        )
        found = score(metric, classes[::-1], samples)
        np.testing.assert_equal(found, expected)
        for name, row in metric.report['bbox']['classes'].items():
            same = sound.report['bbox']['classes'][name]
            assert row == pytest.approx(same, abs=1e-9)


# Refused before any work.


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(backend='fast'), "got 'fast'"),
        (dict(proposal_nums=(10, 100)), r'got \(10, 100\)'),
        (dict(metric_items=['AP']), "'AP'"),
        (dict(use_mp_eval=True), '--eval-backend pycocotools'),
    ],
)
def test_bad_arguments(predicted, options, message):
    build = partial(FastCocoMetric, ann_file=str(predicted[0]))
    with pytest.raises(InputError, match=message):
        build(**options)
    build(metric='proposal_fast', proposal_nums=(10, 100))
    build(backend='pycocotools', use_mp_eval=True)


@pytest.mark.parametrize(
    ('key', 'value'), [('area', None), ('area', '12'), ('iscrowd', None)]
)
def test_unsound_annotations(predicted, tmp_path, key, value):
    content = json.loads(predicted[0].read_text())
    content['annotations'][2][key] = value
    file = tmp_path / 'unsound.json'
    file.write_text(json.dumps(content))
    build = partial(FastCocoMetric, ann_file=str(file))
    with pytest.raises(InputError, match=f"annotation 3 .*'{key}'"):
        build()
    build(format_only=True, outfile_prefix=str(tmp_path))


def test_engine_not_installed(predicted, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    monkeypatch.delitem(
        sys.modules, 'mmdet_attn.evaluation.faster', raising=False
    )
    with pytest.raises(InputError, match='pip install faster-coco-eval') as e:
        FastCocoMetric(ann_file=str(predicted[0]))
    assert '--eval-backend pycocotools' in str(e.value)
    FastCocoMetric(ann_file=str(predicted[0]), backend='pycocotools')


# In configs.


def test_found_by_its_dotted_name():
    from mmdet.registry import METRICS

    for registry in (METRICS, ROOT_METRICS):
        built = registry.build(dict(type='mmdet_attn.FastCocoMetric'))
        assert type(built) is FastCocoMetric


def test_choice_of_engine():
    plain = dict(type='CocoMetric', metric='bbox')
    ours = dict(type='mmdet_attn.FastCocoMetric', backend='faster')
    other = dict(type='LVISMetric')
    inner = dict(type='MultiDatasetsEvaluator', metrics=[plain])
    tests = [ours, other, inner]
    cfg = Config(dict(val_evaluator=plain, test_evaluator=tests))
    assert len(coco_metrics(cfg, 'val')) == 1
    assert len(coco_metrics(cfg, 'test')) == 2
    before = copy.deepcopy(cfg.test_evaluator[1])
    set_eval_backend(cfg, 'pycocotools')
    for metric in coco_metrics(cfg, 'val', 'test'):
        assert metric.type == 'mmdet_attn.FastCocoMetric'
        assert metric.backend == 'pycocotools'
    assert cfg.val_evaluator.metric == 'bbox'
    assert cfg.test_evaluator[1] == before
    with pytest.raises(InputError, match='--eval-backend faster'):
        set_eval_backend(Config(dict(test_evaluator=other)), 'faster')
