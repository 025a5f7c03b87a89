"""A folder in COCO format as data set, and what is refused about one."""

import json
import shutil

import pytest
from conftest import ROOT, need_shared
from mmengine.config import Config

from mmdet_attn.datasets.coco_check import check_annotations
from mmdet_attn.datasets.coco_folder import use_data_root
from mmdet_attn.errors import InputError

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross')


def load(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def edit(root, split, change):
    file = root / f'annotations/instances_{split}.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def copy(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / 'set')


def test_everything_follows_the_folder(shapes):
    cfg = load('mask_rcnn_r50_eca')
    use_data_root(cfg, str(shapes))
    for key, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{key}_dataloader'].dataset
        assert dataset.data_root == str(shapes)
        assert dataset.ann_file == f'annotations/instances_{split}.json'
        assert dataset.data_prefix.img == f'{split}/'
        assert dataset.metainfo.classes == CLASSES
    for key in ('val', 'test'):
        assert cfg[f'{key}_evaluator'].ann_file == str(
            shapes / 'annotations/instances_val.json'
        )
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 5
    cfg = load('retinanet_r50')
    use_data_root(cfg, str(shapes))
    assert cfg.model.bbox_head.num_classes == 5


def test_coco_s_own_names_and_wrappers(copy):
    for split in ('train', 'val'):
        (copy / split).rename(copy / f'{split}2017')
        file = copy / f'annotations/instances_{split}.json'
        file.rename(copy / f'annotations/instances_{split}2017.json')
    cfg = load('faster_rcnn_r50')
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=inner
    )
    use_data_root(cfg, str(copy))
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'RepeatDataset'
    assert dataset.dataset.data_prefix.img == 'train2017/'
    assert dataset.dataset.metainfo.classes == CLASSES


def test_only_what_is_needed(copy):
    shutil.rmtree(copy / 'train')
    (copy / 'annotations/instances_train.json').unlink()
    use_data_root(load('faster_rcnn_r50'), str(copy), ('val',))
    with pytest.raises(InputError, match='lacks the train split'):
        use_data_root(load('faster_rcnn_r50'), str(copy))


def test_missing_pieces(copy, tmp_path):
    cfg = load('faster_rcnn_r50')
    with pytest.raises(InputError, match='nowhere: no such folder'):
        use_data_root(cfg, str(tmp_path / 'nowhere'))
    shutil.rmtree(copy / 'val')
    with pytest.raises(InputError, match=r'lacks .*/val\. Wanted: train/'):
        use_data_root(cfg, str(copy))


def clear(key):
    return lambda content: content[key].clear()


def set_first(key, value):
    return lambda content: content['annotations'][0].update({key: value})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (clear('images'), 'train.json has no images'),
        (clear('categories'), 'train.json has no categories'),
        (set_first('category_id', 77), 'category_id that is not among the 5'),
        (set_first('image_id', 999), 'image_id that is not among the images'),
        (set_first('bbox', [90, 90, 50, 5]), 'reaches outside its image'),
        (set_first('bbox', [-9, 0, 20, 5]), 'reaches outside its image'),
        (set_first('bbox', [1, 1, -5, 5]), r'not \[x, y, width, height\]'),
        (set_first('bbox', [1, 1, 5]), r'not \[x, y, width, height\]'),
        (
            lambda c: c['annotations'][0].pop('id'),
            "not a COCO .*KeyError: 'id'",
        ),
        (lambda c: c.pop('annotations'), "not a COCO .* KeyError: 'annot"),
    ],
)
def test_unsound_annotations(copy, change, message):
    edit(copy, 'train', change)
    with pytest.raises(InputError, match=message) as error:
        use_data_root(load('faster_rcnn_r50'), str(copy))
    assert 'instances_train.json' in str(error.value)
    if 'annotations are' in message or 'ids' in str(error.value):
        assert str(error.value).endswith('ids 1.')


def test_first_offending_ids(copy):
    def shift(content):
        for annotation in content['annotations'][2:9]:
            annotation['category_id'] = 0

    edit(copy, 'train', shift)
    with pytest.raises(InputError, match=r'7 of \d+ .* ids 3, 4, 5, 6, 7, '):
        use_data_root(load('faster_rcnn_r50'), str(copy))


def test_rounding_is_no_offence(copy):
    edit(copy, 'train', set_first('bbox', [-0.4, 0, 96.9, 96.6]))
    use_data_root(load('faster_rcnn_r50'), str(copy))


def test_masks_are_needed_where_trained(copy):
    edit(copy, 'train', set_first('segmentation', []))
    use_data_root(load('faster_rcnn_r50'), str(copy))
    with pytest.raises(InputError, match=r'no segmentation, which .* ids 1'):
        use_data_root(load('mask_rcnn_r50'), str(copy))


def test_categories_must_agree(copy):
    edit(copy, 'val', lambda c: c['categories'][0].update(name='disc'))
    with pytest.raises(InputError, match=r'categories of train and val .*dis'):
        use_data_root(load('faster_rcnn_r50'), str(copy))


def test_names_must_differ(copy):
    edit(copy, 'val', lambda c: c['categories'][0].update(name='star'))
    with pytest.raises(InputError, match="2 categories are named 'star'"):
        use_data_root(load('faster_rcnn_r50'), str(copy))


def test_joined_sets_are_refused(shapes):
    cfg = load('faster_rcnn_r50')
    inner = cfg.train_dataloader.dataset
    joined = dict(type='ConcatDataset', datasets=[inner, inner])
    cfg.train_dataloader.dataset = joined
    with pytest.raises(InputError, match=r'several data sets \(ConcatDataset'):
        use_data_root(cfg, str(shapes))


def test_not_json(copy):
    (copy / 'annotations/instances_val.json').write_text('{"images": [')
    with pytest.raises(InputError, match='not a COCO detection file'):
        use_data_root(load('faster_rcnn_r50'), str(copy))


@pytest.mark.parametrize(
    ('name', 'classes'), [('bccd', 3), ('nuclei', 1), ('coco_cc', 80)]
)
def test_real_sets_are_sound(name, classes):
    folder = need_shared(name) / 'annotations'
    for split in ('train', 'val'):
        names = check_annotations(folder / f'instances_{split}.json')
        assert len(names) == classes
