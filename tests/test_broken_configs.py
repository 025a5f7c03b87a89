"""Broken configurations: one line, no traceback, exit code 2."""

import re

import pytest
from conftest import DEMO, NO_WORKERS, ROOT, user_error

PLUGIN = 'model.backbone.plugins.0'
BASE = f'_base_ = {str(ROOT / DEMO)!r}\n'

# What --cfg-options break, and the words that the message must have.
OPTIONS = {
    'plugin type': (f'{PLUGIN}.cfg.type=mmdet_attn.EAC', 'mmdet_attn.ECA'),
    'plugin type, no package': (f'{PLUGIN}.cfg.type=EAC', "'EAC'.* ECA"),
    'detector type': ('model.type=FasterRCN', 'FasterRCN.* FasterRCNN'),
    'neck type': ('model.neck.type=FPNN', 'FPNN.* FPN'),
    'data set type': (
        'train_dataloader.dataset.type=CoccoDataset',
        'CoccoDataset.*--data-root',
    ),
    'transform type': (
        'train_dataloader.dataset.pipeline.2.type=Resise',
        'Resise.* Resize',
    ),
    'hook type': (
        'default_hooks.checkpoint.type=CheckpointHok',
        'CheckpointHok.* CheckpointHook',
    ),
    'optimizer type': ('optim_wrapper.optimizer.type=AdamV', 'AdamV.* Adam'),
    'metric type': (
        'val_evaluator.type=CocoMetrik',
        'CocoMetrik.* CocoMetric',
    ),
    'norm type': ('model.backbone.norm_cfg.type=BNN', "'BNN'.* BN"),
    'plugin argument': (f'{PLUGIN}.cfg.kernel_sice=3', 'kernel_size'),
    'plugin value': (f'{PLUGIN}.cfg.kernel_size=4', 'must be odd, got 4'),
    'optimizer argument': (
        'optim_wrapper.optimizer.weigth_decay=0.1',
        'weigth_decay.* weight_decay',
    ),
    'key of Runner': ('optim_wraper.optimizer.lr=0.1', 'optim_wrapper'),
    'another key of Runner': ('trian_cfg.max_epochs=1', 'train_cfg'),
    'key inside': ('train_cfg.max_epoch=1', 'max_epoch; .* max_epochs'),
    'key of the test': (
        'model.test_cfg.rcnn.score_thresh=0.1',
        'model.test_cfg.rcnn.score_thr',
    ),
    'index of a list': ('param_scheduler.5.end=3', 'param_scheduler.5'),
    'part of a number': ('train_cfg.max_epochs.x=3', 'train_cfg.max_epochs'),
    'position': (
        f'{PLUGIN}.position=after_conv4',
        'after_conv3.*after_conv4',
    ),
    'stages': (f'{PLUGIN}.stages=(True,)', r'stages.*\(True,\)'),
    'a dict as text': (f'{PLUGIN}={{"position":"after_conv3"}}', PLUGIN),
    'classes': (
        'model.roi_head.bbox_head.num_classes=3',
        'num_classes=3.*--data-root.* 5',
    ),
    'learning rate': ('optim_wrapper.optimizer.lr=abc', "'abc'"),
    'no batch': ('train_dataloader.batch_size=0', 'batch_size.*0'),
    'negative batch': ('train_dataloader.batch_size=-1', 'batch_size.*-1'),
    'half a batch': ('train_dataloader.batch_size=1.5', 'batch_size.*1.5'),
    'no epochs': ('train_cfg.max_epochs=0', 'max_epochs.*0'),
    'frozen stages': ('model.backbone.frozen_stages=7', 'frozen_stages.*7'),
    'depth': ('model.backbone.depth=51', 'depth=51'),
    'no loader': ('train_dataloader=None', 'train_dataloader'),
    'no evaluator': ('val_evaluator=None', 'val_evaluator'),
    'no loader of val': ('val_dataloader=None', 'val_dataloader'),
    'weights to load': ('load_from=none.pth', 'none.pth'),
    'metric': ('val_evaluator.metric=bboxes', 'bboxes.*bbox'),
    'import too late': ('custom_imports.imports=a', 'custom_imports'),
    'scheduler': ('param_scheduler.0.type=LinearLr', 'LinearLR'),
    'sampler': (
        'train_dataloader.sampler.type=DefaultSample',
        'DefaultSampler',
    ),
    'loop': ('train_cfg.type=EpochTrainLoop', 'EpochBasedTrainLoop'),
}


def backbone(text):
    """A config whose backbone has these arguments."""
    return f'{BASE}model = dict(backbone=dict({text}))\n'


# What a config file breaks.
FILES = {
    'no cfg': (backbone("plugins=[dict(position='after_conv3')]"), 'cfg'),
    'no type': (
        backbone("plugins=[dict(cfg=dict(a=1), position='after_conv3')]"),
        r'plugins\.0 .*type',
    ),
    'plugins is no list': (
        backbone(
            "_delete_=True, type='ResNet', depth=50, "
            "plugins=dict(type='mmdet_attn.ECA')"
        ),
        'plugins must be a list',
    ),
    'plugin of no list': (
        backbone("plugins=['ECA']"),
        r"plugins\.0.*'ECA'",
    ),
    'plugin position is missing': (
        backbone("plugins=[dict(cfg=dict(type='ECA'))]"),
        'position',
    ),
    'plugin extent': (
        backbone(
            "plugins=[dict(cfg=dict(type='mmdet_attn.GE', extent=0), "
            "position='after_conv3')]"
        ),
        'extent',
    ),
    'basic block': (backbone('depth=18'), 'AttentionResNet'),
    'no weights': (
        backbone(
            "init_cfg=dict(_delete_=True, type='Pretrained', "
            "checkpoint='no.pth')"
        ),
        'no.pth',
    ),
    'syntax': ('model = dict(\n', 'line 1'),
    'missing base': ("_base_ = 'no_base.py'\n", 'no_base.py'),
    'circular base': ("_base_ = 'broken.py'\n", 'broken.py'),
    'duplicate keys': (
        f'_base_ = [{str(ROOT / DEMO)!r}, '
        f'{str(ROOT / "configs/_base_/shapes.py")!r}]\n',
        'Duplicate key',
    ),
    'undefined variable': (BASE + 'model = dict(depth=dept)\n', 'dept'),
    'base variable': (BASE + 'x = {{_base_.missing}}\n', 'missing'),
    'base attribute': (BASE + 'x = _base_.missing\n', 'missing'),
    'misspelt key': (
        BASE + 'optim_wraper = dict(optimizer=dict(lr=0.1))\n',
        'optim_wraper.* optim_wrapper',
    ),
    'host without plugins': (
        BASE + 'model = dict(backbone=dict(_delete_=True, type="SwinTransf'
        'ormer", plugins=[dict(cfg=dict(type="mmdet_attn.ECA"), '
        'position="after_conv3")]))\n',
        'AttentionNeck',
    ),
    'no model': ("_base_ = 'mmdet::_base_/default_runtime.py'\n", 'model'),
    'division by zero': ('model = 1 / 0\n', 'division by zero'),
    'missing import': (
        BASE + "custom_imports = dict(imports=['no_module'])\n",
        'no_module',
    ),
    'nothing but an import': ('import no_module\n', 'no model'),
    'no dict': (BASE + 'model = 3\n', 'model'),
    'reserved key': ('filename = 3\n', 'filename'),
}


@pytest.fixture(autouse=True)
def _quiet(capfd):
    """The log of what was built until then."""


def check(error, word):
    last = error.strip().splitlines()[-1]
    assert 'Traceback' not in error, error[-1500:]
    assert re.match(r'(train|test|predict)\.py: error: ', last), error[-1500:]
    assert re.search(word, last), last


@pytest.mark.parametrize(('option', 'word'), OPTIONS.values(), ids=OPTIONS)
def test_option(option, word, shapes, tmp_path):
    command = ['tools/train.py', DEMO, '--data-root', shapes]
    command += ['--work-dir', tmp_path, '--cfg-options', *NO_WORKERS, option]
    check(user_error(*command), word)


@pytest.mark.parametrize(('text', 'word'), FILES.values(), ids=FILES)
def test_file(text, word, shapes, tmp_path):
    config = tmp_path / 'broken.py'
    config.write_text(text)
    command = ['tools/train.py', config, '--work-dir', tmp_path]
    check(user_error(*command, '--data-root', shapes), word)
