"""What is refused about annotations and images before a start, and why."""

import copy
import json
import shutil
from pathlib import Path

import broken
import numpy as np
import pytest
from conftest import (
    DEMO,
    box_ap,
    load_config,
    need_shared,
    quick_options,
    run_here,
    run_tool,
    user_error,
)
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from pycocotools import mask as mask_tools

from mmdet_attn.datasets.coco_check import read_annotations
from mmdet_attn.datasets.coco_folder import use_data_root
from mmdet_attn.datasets.contents import check_contents
from mmdet_attn.datasets.image_check import bad_images
from mmdet_attn.datasets.run_lengths import fill
from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.coco_metric import FastCocoMetric

BOXES = 'demo/faster_rcnn_r50_eca_shapes'
MASKS = 'demo/mask_rcnn_r50_eca_shapes'
FILE = 'annotations/instances_train.json'
# What harms only one of the two, or neither.
HARMLESS = {'annotation id 0', 'one zero-size box'}
FOR_TRAINING = {'ignore'}
FOR_BOXES = {
    name
    for name in broken.ANNOTATIONS
    if 'polygon' in name or 'run lengths' in name
}


@pytest.fixture(scope='module')
def good(shapes):
    return json.loads((shapes / FILE).read_text())


@pytest.fixture(scope='module')
def small(good):
    """Three annotations of two images."""
    ids = [one['image_id'] for one in good['annotations'][:3]]
    wanted = [x for x in good['images'] if x['id'] in (*ids, 2)]
    return good | {
        'images': wanted,
        'annotations': good['annotations'][:3],
    }


@pytest.fixture
def folder(shapes, tmp_path):
    return shutil.copytree(shapes, tmp_path / 'set')


def config(folder, name=BOXES):
    """Train and val are the training split, with paths in the config."""
    cfg = load_config(name)
    cfg.work_dir = str(folder / 'work')
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.update(data_root=str(folder), ann_file=FILE)
        dataset.data_prefix.img = 'train/'
    for part in ('val', 'test'):
        cfg[f'{part}_evaluator'].ann_file = str(folder / FILE)
    return cfg


def write(folder, change, good):
    content = change(copy.deepcopy(good))
    (folder / FILE).write_text(json.dumps(content))


def refused(cfg, part):
    """The message, which must be one line that names the file."""
    try:
        check_contents(cfg, (part,))
    except InputError as error:
        message = str(error)
        assert 'instances_train.json' in message
        assert '\n' not in message
        assert len(message) < 600
        return message
    return ''


def train_on(cfg):
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    for index in range(len(dataset)):
        instances = dataset[index]['data_samples'].gt_instances
        assert np.isfinite(instances.bboxes.numpy()).all()


def evaluate(file, kinds, backend):
    """Evaluate what the file has as if a detector had found it."""
    content = json.loads(file.read_text())
    rank = {c['id']: k for k, c in enumerate(content['categories'])}
    metric = FastCocoMetric(str(file), kinds, backend=backend)
    metric.dataset_meta = {
        'classes': [c['name'] for c in content['categories']]
    }
    results = []
    for image in content['images']:
        found = [
            one
            for one in content['annotations']
            if one['image_id'] == image['id']
        ]
        box = np.array([one['bbox'] for one in found], float).reshape(-1, 4)
        size = image['height'], image['width']
        masks = [
            mask_tools.merge(
                mask_tools.frPyObjects(one['segmentation'], *size)
            )
            if isinstance(one['segmentation'], list)
            else mask_tools.frPyObjects(one['segmentation'], *size)
            for one in found
            if 'segm' in kinds
        ]
        prediction = dict(
            img_id=image['id'],
            bboxes=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1),
            scores=np.ones(len(found)),
            labels=np.array([rank[one['category_id']] for one in found], int),
        )
        if 'segm' in kinds:
            prediction['masks'] = masks
        results.append(({}, prediction))
    return metric.compute_metrics(results)


@pytest.mark.parametrize('name', broken.ANNOTATIONS)
def test_mistakes(folder, good, name):
    write(folder, broken.ANNOTATIONS[name], good)
    for model, part in (
        (MASKS, 'train'),
        (MASKS, 'val'),
        (BOXES, 'train'),
        (BOXES, 'val'),
    ):
        may = name in HARMLESS
        may |= name in FOR_TRAINING and part == 'train'
        may |= name in FOR_BOXES and model == BOXES
        assert bool(refused(config(folder, model), part)) != may, part


def test_any_field_may_hold_anything(folder, small):
    """No other error than one line."""
    messages = []
    for change in broken.FIELDS.values():
        write(folder, change, small)
        try:
            read_annotations(folder / FILE, masks=True)
        except InputError as error:
            messages.append(str(error))
    assert 10 < len(broken.FIELDS) - len(messages) < 40
    assert not [message for message in messages if '\n' in message]


@pytest.mark.slow
@pytest.mark.parametrize('model', [BOXES, MASKS])
def test_what_is_accepted_works(folder, small, model):
    """It can be trained on, and evaluated by both engines."""
    kinds = ['bbox', 'segm'] if model == MASKS else ['bbox']
    accepted, cfg = 0, config(folder, model)
    for change in (*broken.FIELDS.values(), *broken.ANNOTATIONS.values()):
        write(folder, change, small)
        if not refused(cfg, 'train'):
            accepted += 1
            train_on(cfg)
        if not refused(cfg, 'val'):
            for backend in ('faster', 'pycocotools'):
                assert evaluate(folder / FILE, kinds, backend)
    assert 20 < accepted < 100


def test_the_first_ids_are_named(folder, good):
    def change(content):
        for one in content['annotations'][2:9]:
            one['area'] = None
        return content

    write(folder, change, good)
    message = refused(config(folder), 'train')
    assert f'7 of {len(good["annotations"])} annotations' in message
    assert 'ids 3, 4, 5, 6, 7, ...' in message


def test_few_empty_boxes_are_told(folder, good, capsys):
    """COCO's own training file has two."""
    write(folder, broken.ANNOTATIONS['one zero-size box'], good)
    assert not refused(config(folder), 'train')
    assert 'have an empty box or area' in capsys.readouterr().out


@pytest.mark.parametrize('backend', ['faster', 'pycocotools'])
def test_id_zero_is_evaluated_as_any_other(folder, good, backend):
    write(folder, broken.ANNOTATIONS['annotation id 0'], good)
    found = evaluate(folder / FILE, ['bbox'], backend)
    assert found['bbox_mAP'] == 1
    cfg = config(folder)
    cfg.val_evaluator.type = 'CocoMetric'
    assert '--eval-backend' in refused(cfg, 'val')


def test_run_lengths_are_read_as_by_pycocotools():
    rng = np.random.default_rng(0)
    masks, sizes = [], []
    for rate in (0, 0.001, 0.05, 0.5, 0.95, 1) * 20:
        size = rng.integers(1, 60, 2).tolist()
        mask = np.asfortranarray(rng.random(size) < rate, np.uint8)
        code = mask_tools.encode(mask)
        masks.append({'size': size, 'counts': code['counts'].decode()})
        sizes.append(size)
    masks.append({'size': [3, 4], 'counts': [5, 7]})
    sizes.append([3, 4])
    assert fill(masks, np.array(sizes)).all()
    shorter = [dict(m, counts=m['counts'][:-1]) for m in masks]
    assert not fill(shorter, np.array(sizes)).any()
    other = [dict(m, size=m['size'][::-1]) for m in masks[:-1]]
    square = [size[0] == size[1] for size in sizes[:-1]]
    assert fill(other, np.array(sizes[:-1])).tolist() == square


def test_every_coco_dataset_of_a_config(folder, good):
    cfg = config(folder)
    inner = cfg.train_dataloader.dataset
    wrapped = dict(
        type='MultiImageMixDataset',
        pipeline=[],
        dataset=dict(
            type='ConcatDataset',
            datasets=[
                dict(type='RepeatDataset', times=2, dataset=inner),
                dict(type='ClassBalancedDataset', oversample_thr=0.1)
                | {'dataset': dict(inner, ann_file='annotations/x.json')},
            ],
        ),
    )
    cfg.train_dataloader.dataset = wrapped
    file = folder / 'annotations/x.json'
    assert not refused(cfg, 'train')  # a missing file is not its business
    file.write_text('{"images": [')
    with pytest.raises(InputError, match=r'x\.json'):
        check_contents(cfg, ('train',))
    # Another format is left alone, as is what is not on a local disk.
    last = cfg.train_dataloader.dataset.dataset.datasets[1].dataset
    last['type'] = 'CocoPanopticDataset'
    assert not refused(cfg, 'train')
    last.update(type='CocoDataset', backend_args=dict(backend='petrel'))
    assert not refused(cfg, 'train')


def test_images_to_predict_on_need_no_annotations(folder, good):
    write(folder, broken.whole('annotations', broken.MISSING), good)
    cfg = config(folder)
    assert refused(cfg, 'test')
    cfg.test_evaluator.format_only = True
    assert not refused(cfg, 'test')


def test_classes_in_another_order(folder):
    """mmdet would number them by the file, and name them by the config."""
    cfg = config(folder)
    classes = cfg.train_dataloader.dataset.metainfo.classes
    for wrong in (classes[::-1], ('cat', 'dog')):
        cfg.train_dataloader.dataset.metainfo = dict(classes=wrong)
        assert 'metainfo.classes' in refused(cfg, 'train')
    cfg.train_dataloader.dataset.metainfo = dict(classes=classes[1:3])
    assert not refused(cfg, 'train')


@pytest.mark.parametrize('name', ['bccd', 'nuclei', 'coco_cc'])
def test_real_sets_are_sound(name, tmp_path, capsys):
    cfg = load_config('faster_rcnn_r50' if name == 'bccd' else 'mask_rcnn_r50')
    cfg.work_dir = str(tmp_path)
    use_data_root(cfg, str(need_shared(name)))
    check_contents(cfg, ('train', 'val', 'test'))
    assert not capsys.readouterr().out


# Images


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('kind', broken.images())
def test_broken_images(folder, good, suffix, kind, monkeypatch):
    """Refused with their name, or left out of everything."""
    name = f'broken{suffix}'
    (folder / 'train' / name).write_bytes(broken.images(suffix)[kind])
    size = {'width': 20000, 'height': 20} if kind == 'very long' else {}
    if kind == 'one pixel':
        size = {'width': 2, 'height': 1}

    def change(content):
        content['images'][2].update(file_name=name, **size)
        if size:
            content['annotations'] = [
                x for x in content['annotations'] if x['image_id'] != 3
            ]
        return content

    write(folder, change, good)
    message = refused(config(folder), 'train')
    assert f'1 images cannot be used: {name} (' in message
    assert '--skip-bad-images' in message

    cfg = config(folder)
    check_contents(cfg, ('train', 'val'), skip_bad_images=True)
    for file in (
        cfg.train_dataloader.dataset.ann_file,
        cfg.val_evaluator.ann_file,
    ):
        content = json.loads(Path(file).read_text())
        assert len(content['images']) == 7
        assert {x['image_id'] for x in content['annotations']} <= {
            x['id'] for x in content['images']
        }
        assert content['left_out'][0].startswith(name)
    check_contents(cfg, ('train', 'val'))
    train_on(cfg)
    # The other processes of a node take the files that the first one writes.
    other = config(folder)
    monkeypatch.setenv('LOCAL_RANK', '1')
    check_contents(other, ('train', 'val'), skip_bad_images=True)
    assert other.to_dict() == cfg.to_dict()


def test_missing_images(folder):
    for name in ('000002.png', '000005.png'):
        (folder / 'train' / name).unlink()
    message = refused(config(folder), 'train')
    assert '2 images' in message
    assert '000002.png (missing), 000005.png (missing)' in message
    shutil.rmtree(folder / 'train')
    with pytest.raises(InputError, match='leaves no image'):
        check_contents(config(folder), ('train',), skip_bad_images=True)


def test_sizes_are_those_of_the_data_loader(tmp_path):
    """It turns by EXIF; some cameras write on behind the end of a file."""
    turned = broken.images('.jpg')['turned by EXIF']
    paths = [tmp_path / 'turned.jpg', tmp_path / 'longer.jpg']
    paths[0].write_bytes(turned)
    paths[1].write_bytes(turned + bytes(500))
    size = (96, 60)
    assert bad_images(paths, [size] * 2, {}) == {}
    assert len(bad_images(paths, [size[::-1]] * 2, {})) == 2
    as_stored = {'flag': 'color_ignore_orientation'}
    assert bad_images(paths, [size[::-1]] * 2, as_stored) == {}


# The tools


def test_tools_check_before_they_build(folder, good):
    write(folder, broken.ANNOTATIONS['duplicate image ids'], good)
    options = quick_options(folder, folder / 'work')
    message = user_error('tools/train.py', DEMO, *options)
    assert 'ids of images are there more than once: ids 1.' in message


@pytest.mark.slow
def test_without_bad_images(trained, folder):
    """Train in two processes, then test; both say what they left out."""
    (folder / 'train/000002.png').write_bytes(b'')
    (folder / 'val/000001.png').unlink()
    options = quick_options(folder, folder / 'work')
    train = ['tools/train.py', DEMO]
    message = user_error(*train, *options)
    assert '000002.png (cannot be decoded' in message
    options.insert(0, '--skip-bad-images')
    log = run_tool('tools/dist_train.sh', DEMO, 2, *options)
    assert '1 of 8 images are left out' in log
    assert '3 images: 1 bad ones are left out' in log
    assert box_ap(log)
    test = ['tools/test.py', DEMO, trained.checkpoint]
    assert '000001.png (missing)' in user_error(*test, *options[1:])
    log = run_tool(*test, *options)
    assert '3 images: 1 bad ones are left out' in log
    (report,) = (folder / 'work').glob('*/*_metrics.json')
    content = json.loads(report.read_text())['coco']
    assert (content['images'], content['left_out']) == (3, 1)


@pytest.mark.slow
def test_predict_goes_on(trained, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    for kind, content in broken.images('.jpg').items():
        (images / f'{kind}.jpg').write_bytes(content)
    shutil.copy(trained.data / 'val/000001.png', images / 'zebra.png')
    command = ['tools/predict.py', DEMO, trained.checkpoint, images]
    code, output = run_here(*command, '--out-dir', tmp_path / 'out')
    assert code == 1
    done = {file.stem for file in (tmp_path / 'out/preds').glob('*.json')}
    assert {'zebra', 'one pixel', 'another size', 'turned by EXIF'} == done
    failed = broken.images().keys() - done
    assert f'{len(failed)} of {len(failed) + len(done)} images' in output
    for kind in failed:
        assert f'{kind}.jpg: ' in output
