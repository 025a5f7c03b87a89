"""AP of any choice of images is that of pycocotools."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from conftest import need_shared
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.engine import find_evaluator
from mmdet_attn.study.facts import read_facts
from mmdet_attn.study.matches import (
    Matches,
    ap,
    aps,
    bootstrap_differences,
    matches_of,
    read_matches,
    write_matches,
)

IMAGES, CLASSES = 12, 4


def evaluate(truth, found, kind='bbox', evaluator=COCOeval):
    """An evaluator that has run, on copies."""
    truth, found = copy.deepcopy([truth, found])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        done = evaluator(coco, coco.loadRes(found), kind)
        done.params.maxDets = [100, 300, 1000]
        done.evaluate()
        done.accumulate()
        done.summarize()
    return done


def random_set(seed, found_share=0.7, others=20):
    """Crowds, an empty image, a class without objects, many detections."""
    rng = np.random.default_rng(seed)
    annotations, found = [], []
    for image in range(1, IMAGES):
        for _ in range(rng.integers(1, 6)):
            box = rng.uniform([0, 0, 5, 5], 85)
            one = dict(
                id=len(annotations) + 1,
                image_id=image,
                category_id=int(rng.integers(1, CLASSES)),
                bbox=box.tolist(),
                area=float(box[2] * box[3]),
                iscrowd=int(rng.random() < 0.2),
            )
            annotations.append(one)
            if rng.random() < found_share:
                near = (box * rng.normal(1, 0.05, 4)).tolist()
                found.append({**one, 'bbox': near, 'score': rng.random()})
        # More of a class than count, in one image.
        for _ in range(500 if image < 2 else others):
            found.append(
                dict(
                    image_id=image,
                    category_id=int(rng.integers(1, CLASSES + 1)),
                    bbox=rng.uniform([0, 0, 5, 5], 85).tolist(),
                    score=rng.random() ** 2,
                )
            )
    truth = dict(
        images=[dict(id=i, width=200, height=200) for i in range(IMAGES)],
        categories=[dict(id=k + 1, name=f'c{k}') for k in range(CLASSES)],
        annotations=annotations,
    )
    return truth, found


def repeated(truth, found, weights):
    """The same set with each image as often as its weight says."""
    images, annotations, detections = [], [], []
    for image, weight in zip(truth['images'], weights, strict=True):
        for _ in range(weight):
            number = len(images)
            images.append({**image, 'id': number})
            for source, target in (
                (truth['annotations'], annotations),
                (found, detections),
            ):
                target += [
                    {**one, 'image_id': number}
                    for one in source
                    if one['image_id'] == image['id']
                ]
    for number, one in enumerate(annotations, 1):
        one['id'] = number
    return {**truth, 'images': images, 'annotations': annotations}, detections


@pytest.mark.parametrize('engine', ['faster', 'pycocotools'])
@pytest.mark.parametrize(
    ('folder', 'kind'),
    [
        ('cocoapi_val2014_fake100', 'bbox'),
        ('cocoapi_val2014_fake100', 'segm'),
        ('padilla_coco_bbox_area', 'bbox'),
        ('torchmetrics_coco10', 'bbox'),
    ],
)
def test_published_pairs(folder, kind, engine):
    root = need_shared('eval_pairs') / folder
    names = json.loads((root / 'PUBLISHED.json').read_text())[kind]
    truth, found = (
        json.loads((root / names[name]).read_text()) for name in ('gt', 'dt')
    )
    done = evaluate(truth, found, kind, find_evaluator(engine))
    assert done.stats[0] > 0.3
    assert ap(matches_of(done)) == pytest.approx(done.stats[0], abs=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_repeated_images(seed):
    """An image that counts twice is like two images."""
    truth, found = random_set(seed)
    matches = matches_of(evaluate(truth, found))
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (3, IMAGES)) * (rng.random((3, IMAGES)) > 0.3)
    for row, value in zip(weights, aps(matches, weights), strict=True):
        expected = evaluate(*repeated(truth, found, row)).stats[0]
        assert value == pytest.approx(expected, abs=1e-12)
        assert value == ap(matches, row)
    assert len(set(aps(matches, weights))) == 3


def test_nothing_to_find():
    truth, found = random_set(0)
    matches = matches_of(evaluate(truth, found))
    only_empty = np.arange(IMAGES) == 0
    assert ap(matches, only_empty) is None
    # Objects of which none is found.
    found = [one for one in found if one['category_id'] == CLASSES]
    assert ap(matches_of(evaluate(truth, found))) == 0


def test_stored(tmp_path):
    """A file that is not that of the facts, or damaged, is not read."""
    matches = matches_of(evaluate(*random_set(1)))
    digest = write_matches(tmp_path, {'bbox': matches})
    found = read_matches(tmp_path, digest)
    assert found.keys() == {'bbox'}
    assert ap(found['bbox']) == ap(matches)
    assert read_matches(tmp_path, None) == {}
    write_matches(tmp_path, {'bbox': matches_of(evaluate(*random_set(2)))})
    assert read_matches(tmp_path, digest) == {}
    assert read_matches(tmp_path / 'elsewhere', digest) == {}


def test_differences():
    """The pairing of images leaves little of the spread between images."""
    truth, found = random_set(3, 0.9, others=2)
    rng = np.random.default_rng(0)
    worse = [one for one in found if 'id' not in one or rng.random() < 0.7]
    here, there = (matches_of(evaluate(truth, f)) for f in (found, worse))
    done = bootstrap_differences(here, there, resamples=200)
    assert done.difference == ap(here) - ap(there) > 0
    assert done.low < done.difference < done.high
    assert done == bootstrap_differences(here, there, resamples=200)
    back = bootstrap_differences(there, here, resamples=200)
    assert back == pytest.approx([-done.difference, -done.high, -done.low])
    assert bootstrap_differences(here, here, resamples=50) == (0, 0, 0)
    # The ends are those of differences of resampled sets.
    drawn = rng.integers(0, IMAGES, (400, IMAGES))
    weights = np.stack([np.bincount(row, minlength=IMAGES) for row in drawn])
    values = aps(here, weights) - aps(there, weights)
    ends = np.percentile(values, [2.5, 97.5])
    np.testing.assert_allclose(done[1:], ends, atol=np.ptp(ends) / 4)


@pytest.mark.parametrize('change', ['images', 'annotations'])
def test_other_images_are_refused(change):
    truth, found = random_set(4)
    truth['annotations'][-1]['iscrowd'] = 0
    here = matches_of(evaluate(truth, found))
    truth[change] = truth[change][:-1]
    images = {image['id'] for image in truth['images']}
    found = [one for one in found if one['image_id'] in images]
    there = matches_of(evaluate(truth, found))
    with pytest.raises(InputError, match='not evaluated on the same images'):
        bootstrap_differences(here, there)


@pytest.mark.slow
def test_of_a_training(trained):
    facts = read_facts(trained.work)
    (found,) = read_matches(trained.work, facts['matches']).values()
    assert isinstance(found, Matches)
    expected = facts['evaluations'][-1]['bbox']['all']['AP']
    assert ap(found) == pytest.approx(expected, abs=1e-12)
