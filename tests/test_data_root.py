"""A folder in COCO format as data set, and what is refused about one."""

import json
import shutil

import pytest
from conftest import load_config, need_shared

from mmdet_attn.datasets.coco_check import check_annotations
from mmdet_attn.datasets.coco_folder import use_data_root
from mmdet_attn.errors import InputError

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross')


def edit(root, split, change):
    file = root / f'annotations/instances_{split}.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def copy(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / 'set')


def test_everything_follows_the_folder(shapes):
    cfg = load_config('mask_rcnn_r50_eca')
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
    cfg = load_config('retinanet_r50')
    use_data_root(cfg, str(shapes))
    assert cfg.model.bbox_head.num_classes == 5


def test_coco_s_own_names_and_wrappers(copy):
    for split in ('train', 'val'):
        (copy / split).rename(copy / f'{split}2017')
        file = copy / f'annotations/instances_{split}.json'
        file.rename(copy / f'annotations/instances_{split}2017.json')
    cfg = load_config('faster_rcnn_r50')
    inner = cfg.train_dataloader.dataset
    repeat = dict(type='RepeatDataset', times=2, dataset=inner)
    cfg.train_dataloader.dataset = repeat
    use_data_root(cfg, str(copy))
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'RepeatDataset'
    assert dataset.dataset.data_prefix.img == 'train2017/'
    assert dataset.dataset.metainfo.classes == CLASSES


def test_only_what_is_needed(copy):
    shutil.rmtree(copy / 'train')
    (copy / 'annotations/instances_train.json').unlink()
    use_data_root(load_config('faster_rcnn_r50'), str(copy), ('val',))
    with pytest.raises(InputError, match=r'lacks the train split'):
        use_data_root(load_config('faster_rcnn_r50'), str(copy))


def test_missing_pieces(copy, tmp_path):
    cfg = load_config('faster_rcnn_r50')
    with pytest.raises(InputError, match='nowhere'):
        use_data_root(cfg, str(tmp_path / 'nowhere'))
    shutil.rmtree(copy / 'val')
    with pytest.raises(InputError, match=r'lacks .*/val'):
        use_data_root(cfg, str(copy))


def first(**values):
    return lambda content: content['annotations'][0].update(values)


def seven_of_no_class(content):
    for annotation in content['annotations'][2:9]:
        annotation['category_id'] = 0


UNSOUND = [
    (lambda c: c['images'].clear(), 'images'),
    (lambda c: c['categories'].clear(), 'categories'),
    (first(category_id=77), r'category_id .* 1\b'),
    (first(image_id=999), r'image_id .* 1\b'),
    (first(bbox=[90, 90, 50, 5]), r'outside .* 1\b'),
    (first(bbox=[-9, 0, 20, 5]), r'outside .* 1\b'),
    (first(bbox=[1, 1, -5, 5]), r'width, height.* 1\b'),
    (first(bbox=[1, 1, 5]), r'width, height.* 1\b'),
    (lambda c: c['annotations'][0].pop('id'), "'id'"),
    (lambda c: c.pop('annotations'), "'annotations'"),
    (seven_of_no_class, r'7 of \d+ .* 3, 4, 5, 6, 7, '),
    (lambda c: c['categories'][0].update(name='star'), "'star'"),
]


@pytest.mark.parametrize(('change', 'message'), UNSOUND)
def test_unsound_annotations(copy, change, message):
    """The file, the rule and the first offending ids."""
    edit(copy, 'train', change)
    with pytest.raises(InputError, match=f'instances_train.json.*{message}'):
        use_data_root(load_config('faster_rcnn_r50'), str(copy))


def test_rounding_is_no_offence(copy):
    edit(copy, 'train', first(bbox=[-0.4, 0, 96.9, 96.6]))
    use_data_root(load_config('faster_rcnn_r50'), str(copy))


def test_masks_are_needed_where_trained(copy):
    edit(copy, 'train', first(segmentation=[]))
    use_data_root(load_config('faster_rcnn_r50'), str(copy))
    with pytest.raises(InputError, match=r'segmentation.* ids 1'):
        use_data_root(load_config('mask_rcnn_r50'), str(copy))


def test_categories_must_agree(copy):
    edit(copy, 'val', lambda c: c['categories'][0].update(name='disc'))
    with pytest.raises(InputError, match=r'train and val .*disc'):
        use_data_root(load_config('faster_rcnn_r50'), str(copy))


def test_joined_sets_are_refused(shapes):
    cfg = load_config('faster_rcnn_r50')
    inner = cfg.train_dataloader.dataset
    joined = dict(type='ConcatDataset', datasets=[inner, inner])
    cfg.train_dataloader.dataset = joined
    with pytest.raises(InputError, match='ConcatDataset'):
        use_data_root(cfg, str(shapes))


def test_not_json(copy):
    (copy / 'annotations/instances_val.json').write_text('{"images": [')
    with pytest.raises(InputError, match='instances_val'):
        use_data_root(load_config('faster_rcnn_r50'), str(copy))


@pytest.mark.parametrize(
    ('name', 'classes'), [('bccd', 3), ('nuclei', 1), ('coco_cc', 80)]
)
def test_real_sets_are_sound(name, classes):
    folder = need_shared(name) / 'annotations'
    for split in ('train', 'val'):
        names = check_annotations(folder / f'instances_{split}.json')
        assert len(names) == classes
