"""Short trainings and evaluations on real photographs, where they are."""

import re

import pytest
from conftest import NO_WORKERS, need_shared, run_tool

# A narrow ResNet-50 from scratch, small images, two iterations.
NARROW = [
    'model.backbone.base_channels=8',
    'model.backbone.stem_channels=8',
    'model.backbone.init_cfg=None',
    'model.backbone.frozen_stages=-1',
    'model.backbone.norm_eval=False',
    'model.neck.in_channels=[32,64,128,256]',
    *NO_WORKERS,
    'train_dataloader.dataset.pipeline.2.scale=(192,128)',
    'val_dataloader.dataset.pipeline.1.scale=(192,128)',
    'test_dataloader.dataset.pipeline.1.scale=(192,128)',
    'train_dataloader.dataset.indices=4',
    'val_dataloader.dataset.indices=3',
    'test_dataloader.dataset.indices=3',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
]

# Detections at random have low scores: without these there would be none.
TWO_STAGE = [
    'model.test_cfg.rcnn.score_thr=0.0',
    'model.test_cfg.rcnn.max_per_img=20',
    'model.test_cfg.rpn.nms_pre=100',
    'model.test_cfg.rpn.max_per_img=100',
]
ONE_STAGE = ['model.test_cfg.score_thr=0.0', 'model.test_cfg.nms_pre=100']


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'data', 'options', 'classes'),
    [
        ('mask_rcnn_r50_eca', 'coco_cc', TWO_STAGE, ('person', 'toothbrush')),
        ('retinanet_r50_eca', 'bccd', ONE_STAGE, ('RBC', 'Platelets')),
    ],
)
def test_trains_and_evaluates(tmp_path, config, data, options, classes):
    config = f'configs/{config}.py'
    flags = ['--data-root', need_shared(data), '--work-dir', tmp_path]
    flags += ['--cfg-options', *NARROW, *options]
    log = run_tool('tools/train.py', config, *flags)
    losses = [float(x) for x in re.findall(r'  loss: ([\d.a-z]+)', log)]
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)
    pattern = r'coco/(?:bbox|segm)_mAP: [-\d.]+'
    trained = re.findall(pattern, log)
    assert len(trained) == (2 if 'mask' in config else 1)
    output = run_tool(
        'tools/test.py', config, tmp_path / 'epoch_1.pth', *flags
    )
    assert re.findall(pattern, output) == trained
    for name in classes:
        assert f'| {name} ' in output
