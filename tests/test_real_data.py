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
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=6',
    'test_dataloader.dataset.indices=6',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
]

# Detections at random have low scores: without these there would be none.
TWO_STAGE = [
    'model.test_cfg.rcnn.score_thr=0.0',
    'model.test_cfg.rpn.nms_pre=100',
    'model.test_cfg.rpn.max_per_img=100',
]
ONE_STAGE = ['model.test_cfg.score_thr=0.0', 'model.test_cfg.nms_pre=100']


@pytest.mark.parametrize(
    ('config', 'data'),
    [
        ('faster_rcnn_r50_eca', 'coco_cc'),
        ('mask_rcnn_r50_eca', 'coco_cc'),
        ('retinanet_r50_eca', 'coco_cc'),
        ('faster_rcnn_r50_eca', 'bccd'),
    ],
)
def test_trains_and_evaluates(tmp_path, config, data):
    root = need_shared(data)
    command = [
        f'configs/{config}.py',
        '--data-root',
        root,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *NARROW,
        *(ONE_STAGE if 'retina' in config else TWO_STAGE),
    ]
    log = run_tool('tools/train.py', *command)
    losses = [float(x) for x in re.findall(r'  loss: ([\d.a-z]+)', log)]
    assert len(losses) == 4
    assert all(0 < loss < 100 for loss in losses)
    pattern = r'coco/(?:bbox|segm)_mAP: [-\d.]+'
    trained = re.findall(pattern, log)
    assert len(trained) == (2 if 'mask' in config else 1)
    output = run_tool(
        'tools/test.py', command[0], tmp_path / 'epoch_1.pth', *command[1:]
    )
    assert re.findall(pattern, output) == trained
    names = {'coco_cc': ('person', 'toothbrush'), 'bccd': ('RBC', 'Platelets')}
    for name in names[data]:
        assert f'| {name} ' in output
