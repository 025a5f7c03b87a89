"""--image-scale: every size in the pipelines follows."""

import pytest
from conftest import user_error
from mmengine.registry import init_default_scope

from mmdet_attn.config_files import load_config_file
from mmdet_attn.datasets.coco_folder import use_data_root
from mmdet_attn.datasets.image_scale import set_image_scale
from mmdet_attn.errors import InputError

pytest.importorskip('mmdet')

YOLOX = 'mmdet_attn::yolox_s.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'


def scaled(name, *scale):
    cfg = load_config_file(name)
    set_image_scale(cfg, scale)
    return cfg


def sizes(pipeline, *keys):
    return [step[key] for step in pipeline for key in keys if key in step]


@pytest.mark.parametrize('name', ['faster_rcnn_r50_eca', 'mask_rcnn_r18'])
def test_resize(name):
    cfg = scaled(f'mmdet_attn::{name}.py', 640, 480)
    for part in ('train', 'val', 'test'):
        pipeline = cfg[f'{part}_dataloader'].dataset.pipeline
        assert sizes(pipeline, 'scale') == [(640, 480)]


def test_yolox():
    cfg = scaled(YOLOX, 320, 256)
    train = cfg.train_dataloader.dataset.pipeline
    found = sizes(train, 'img_scale', 'border', 'scale')
    assert found == [(320, 256), (-160, -128), (320, 256), (320, 256)]
    (augment,) = cfg.model.data_preprocessor.batch_augments
    assert augment.random_size_range == [192, 320]
    assert sizes(cfg.tta_pipeline[1].transforms[0], 'scale')[0] == (320, 256)


def test_rtmdet():
    cfg = scaled(RTMDET, 500, 320)
    train = cfg.train_dataloader.dataset.pipeline
    keys = ('img_scale', 'scale', 'crop_size', 'size')
    assert sizes(train, *keys) == [
        *((500, 320), (1000, 640), (500, 320)),
        (512, 320),  # of Pad: a multiple of the network's stride
        (500, 320),
    ]
    second = cfg.custom_hooks[1].switch_pipeline
    assert sizes(second, *keys) == [(500, 320), (500, 320), (512, 320)]


def test_several_scales():
    """They are written (short, long); the limits keep their meaning."""
    cfg = scaled('mmdet::detr/detr_r50_8xb2-150e_coco.py', 667, 400)
    text = str(cfg.train_dataloader.dataset.pipeline)
    assert "'scales': [(240, 667), (256, 667)" in text
    assert '[(200, 667), (250, 667)' in text
    assert "'crop_size': (192, 300)" in text


@pytest.mark.parametrize(
    ('name', 'size'), [(YOLOX, (128, 128)), (RTMDET, (64, 128))]
)
def test_images_have_the_size(shapes, name, size):
    """What a data set with these pipelines gives, as (height, width)."""
    from mmdet.registry import DATASETS

    cfg = scaled(name, 128, 64)
    use_data_root(cfg, str(shapes))
    init_default_scope('mmdet')
    image = DATASETS.build(cfg.train_dataloader.dataset)[0]['inputs']
    assert tuple(image.shape[1:]) == size


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'mmdet::ssd/ssd300_coco.py',
            r'cannot set model\.bbox_head\.anchor_generator\.input_size',
        ),
        (
            'mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py',
            'has no Resize',
        ),
        (
            'mmdet::atss/atss_r50_fpn_8xb8-amp-lsj-200e_coco.py',
            r'cannot set model\.data_preprocessor\.batch_augments\.0\.size',
        ),
    ],
)
def test_what_it_cannot_set_is_named(name, message):
    with pytest.raises(InputError, match=message):
        scaled(name, 640, 480)


def test_an_unknown_step_is_named():
    cfg = load_config_file('mmdet_attn::faster_rcnn_r50.py')
    step = dict(type='RandomCenterCropPad', crop_size=(512, 512))
    cfg.train_dataloader.dataset.pipeline.insert(3, step)
    place = r'train_dataloader\.dataset\.pipeline\.3\.crop_size'
    with pytest.raises(InputError, match=place):
        set_image_scale(cfg, (640, 480))


def test_small_scales_are_refused():
    config = 'configs/faster_rcnn_r50.py'
    message = user_error('tools/train.py', config, '--image-scale', 16, 480)
    assert 'must be at least 32 32, got 16 480' in message
