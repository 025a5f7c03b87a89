"""The rendered set: sound, the same for a seed, refused where it must be."""

import hashlib
import json

import numpy as np
import pytest
from conftest import run_here
from pycocotools.coco import COCO

from mmdet_attn.datasets.coco_check import check_annotations
from mmdet_attn.datasets.shapes import CLASSES, make_shapes, run_lengths
from mmdet_attn.errors import InputError

TOOL = 'tools/dataset_converters/make_shapes.py'


def digest(root):
    return {
        str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(root.rglob('*'))
        if f.is_file()
    }


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (('a', 3), ('b', 3), ('c', 4)):
        make_shapes(tmp_path / name, train=3, val=2, size=80, seed=seed)
    a, b, c = (digest(tmp_path / name) for name in 'abc')
    assert len(a) == 7
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_annotations_describe_the_pixels(tmp_path):
    make_shapes(tmp_path / 'set', train=60, val=1, size=128, seed=1)
    file = tmp_path / 'set/annotations/instances_train.json'
    assert check_annotations(file, masks=True) == CLASSES
    coco = COCO(file)
    crowds = 0
    for image in coco.imgs:
        owned = np.zeros((128, 128), int)
        for annotation in coco.imgToAnns[image]:
            mask = coco.annToMask(annotation).astype(bool)
            owned += mask
            assert mask.sum() == annotation['area']
            ends = [np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (0, 1)]
            near, far = np.transpose(ends)
            assert annotation['bbox'] == [*near, *(far + 1 - near)]
            crowds += annotation['iscrowd']
        assert owned.max() <= 1  # what is visible belongs to one shape
    seen = {a['category_id'] for a in coco.anns.values()}
    assert seen == {1, 2, 3, 4, 5}
    assert 1 <= crowds <= 15
    areas = [a['area'] for a in coco.anns.values()]
    assert max(areas) > 20 * min(areas)


@pytest.mark.parametrize('fill', [0.0, 0.3, 1.0])
def test_run_lengths(fill):
    mask = np.random.default_rng(0).random((7, 5)) < fill
    code = run_lengths(mask)
    flat = np.concatenate(
        [np.full(n, i % 2) for i, n in enumerate(code['counts'])]
    )
    assert np.array_equal(flat.reshape(7, 5, order='F').astype(bool), mask)


@pytest.mark.parametrize(
    ('name', 'value'), dict(train=0, val=-1, size=10).items()
)
def test_bad_sizes(tmp_path, name, value):
    with pytest.raises(InputError, match=f'{name} must .* got {value}'):
        make_shapes(tmp_path / 'set', **{name: value})
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / 'keep.txt').write_text('mine')
    code, output = run_here(TOOL, tmp_path)
    assert code == 2
    assert f'error: {tmp_path} is not empty' in output
    assert [f.name for f in tmp_path.iterdir()] == ['keep.txt']


def test_tool(tmp_path):
    root = tmp_path / 'set'
    sizes = ('--train', 2, '--val', 1, '--size', 64)
    code, output = run_here(TOOL, root, *sizes)
    assert code == 0, output
    annotations = root / 'annotations/instances_train.json'
    images = json.loads(annotations.read_text())['images']
    assert [i['file_name'] for i in images] == ['000001.png', '000002.png']
    assert (root / 'val/000001.png').is_file()
