"""Broken configurations: one line, no traceback, exit code 2."""

import errno
import re

import pytest
import torch
from conftest import (
    DEMO,
    NO_WORKERS,
    ROOT,
    load_config,
    run_here,
    user_error,
)
from mmengine.config import Config

from mmdet_attn.cli import config_parser
from mmdet_attn.cli import load_config as read_command
from mmdet_attn.config_checks import check_files, check_options
from mmdet_attn.config_errors import config_errors
from mmdet_attn.datasets.coco_folder import use_data_root
from mmdet_attn.errors import InputError

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
        'mmdet_attn.insert puts them',
    ),
    'no model': ("_base_ = 'mmdet::_base_/default_runtime.py'\n", 'model'),
    'division by zero': ('model = 1 / 0\n', 'division by zero'),
    'missing import': (
        BASE + "custom_imports = dict(imports=['no_module'])\n",
        'no_module',
    ),
    'nothing but an import': ('import no_module\n', 'no model'),
    'no loader': (BASE + 'train_dataloader = 3\n', 'dataset'),
    'no dict': (BASE + 'model = 3\n', 'model'),
    'reserved key': ('filename = 3\n', 'filename'),
}


def check(error, word):
    last = error.strip().splitlines()[-1]
    assert 'Traceback' not in error, error[-1500:]
    assert re.match(r'(train|test|predict)\.py: error: ', last), error[-1500:]
    assert re.search(word, last), last


# Another kind of the same family is in the fast tier.
SLOW = {
    'metric',
    'learning rate',
    'transform type',
    'no weights',
    'stages',
    'neck type',
    'hook type',
    'metric type',
    'scheduler',
    'sampler',
    'loop',
    'optimizer argument',
    'key inside',
    'negative batch',
    'half a batch',
    'depth',
    'weights to load',
    'plugin of no list',
    'plugins is no list',
    'plugin position is missing',
    'no type',
}


def cases(table):
    return [
        pytest.param(
            *case, id=name, marks=[pytest.mark.slow] if name in SLOW else []
        )
        for name, case in table.items()
    ]


@pytest.mark.parametrize(('option', 'word'), cases(OPTIONS))
def test_option(option, word, shapes, tmp_path):
    command = ['tools/train.py', DEMO, '--data-root', shapes]
    command += ['--work-dir', tmp_path, '--cfg-options', *NO_WORKERS, option]
    check(user_error(*command), word)


@pytest.mark.parametrize(('text', 'word'), cases(FILES))
def test_file(text, word, shapes, tmp_path):
    config = tmp_path / 'broken.py'
    config.write_text(text)
    command = ['tools/train.py', config, '--work-dir', tmp_path]
    check(user_error(*command, '--data-root', shapes), word)


GOOD = [
    'randomness.seed=1',
    'randomness.deterministic=True',
    'load_from=a.pth',
    'resume=True',
    'train_dataloader.batch_sampler=None',
    'train_dataloader.prefetch_factor=2',
    'train_dataloader.num_batch_per_epoch=3',
    'train_dataloader.dataset.indices=4',
    'train_cfg.val_begin=2',
    'custom_hooks="[]"',
    'default_hooks.checkpoint.save_best=auto',
    'default_hooks.mine.type=EMAHook',
    'env_cfg.cudnn_benchmark=True',
    'auto_scale_lr.enable=True',
    'optim_wrapper.accumulative_counts=2',
    'optim_wrapper.clip_grad.error_if_nonfinite=True',
    'optim_wrapper.paramwise_cfg.norm_decay_mult=0.0',
    'param_scheduler.0.verbose=True',
    'model.backbone.plugins=None',
    'model.backbone.with_cp=True',
    f'{PLUGIN}.cfg.kernel_size=7',
    f'{PLUGIN}.cfg.postfix=_a',
    'model.test_cfg.rcnn.mask_thr_binary=0.4',
    'model.test_cfg.rpn.min_bbox_size=2',
    'model.roi_head.bbox_head.reg_class_agnostic=True',
    'find_unused_parameters=True',
    'model_wrapper_cfg.type=MMDistributedDataParallel',
]


@pytest.mark.parametrize('option', GOOD)
def test_options_that_may_be_new(option):
    """What the config leaves out, but is read."""
    key, value = option.split('=')
    cfg = load_config(DEMO.removeprefix('configs/').removesuffix('.py'))
    check_options(cfg, {key: value})


def options_of(*options):
    return config_parser('').parse_args([DEMO, '--cfg-options', *options])


def test_new_options():
    args = options_of('mine.number=3')
    with pytest.raises(InputError, match='--new-option sets it'):
        read_command(args)
    args.new_option = True
    assert read_command(args).mine.number == 3


def test_variables_of_the_file_change_nothing():
    with pytest.raises(InputError, match=r'set train_dataloader\.'):
        read_command(options_of('data_root=x'))


@pytest.mark.parametrize(
    ('option', 'missing'),
    [
        ('train_dataloader.dataset.ann_file=no.json', 'no.json:'),
        ('train_dataloader.dataset.data_prefix.img=no/', 'no/:'),
        ('val_dataloader.dataset.data_root=no', 'no/annotations'),
        ('val_evaluator.ann_file=no.json', 'no.json:'),
    ],
)
def test_missing_data(option, missing, shapes, tmp_path):
    cfg = load_config(DEMO.removeprefix('configs/').removesuffix('.py'))
    use_data_root(cfg, shapes)
    cfg.work_dir = str(tmp_path / 'work')
    check_files(cfg, 'train', 'val')
    key, value = option.split('=')
    cfg.merge_from_dict({key: value})
    with pytest.raises(InputError, match=f'lacks .*{missing}.*--data-root'):
        check_files(cfg, 'train', 'val')


def test_training_without_validation(shapes, tmp_path):
    options = [f'val_{part}=None' for part in ('dataloader', 'cfg')]
    args = options_of(*options, 'val_evaluator=None')
    args.data_root, args.work_dir = str(shapes), str(tmp_path)
    cfg = read_command(args, 'train', 'val')
    check_files(cfg, 'train', 'val')
    assert cfg.val_dataloader is None
    assert cfg.train_dataloader.dataset.data_root == str(shapes)


def test_missing_coco(tmp_path):
    command = ['tools/train.py', 'configs/faster_rcnn_r50_eca.py']
    error = user_error(*command, '--work-dir', tmp_path)
    assert 'lacks data/coco/annotations/instances_train2017.json' in error
    assert 'data/coco/val2017/' in error


def test_work_dir_is_a_file(tmp_path):
    file = tmp_path / 'file'
    file.touch()
    for folder in (file, file / 'inside'):
        error = user_error('tools/train.py', DEMO, '--work-dir', folder)
        assert f'--work-dir {folder} cannot be written' in error


def test_errors_of_one_process_are_shown(capsys, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    cfg = Config(dict(model=dict(type='A')))
    with pytest.raises(InputError), config_errors(cfg):
        raise KeyError('own')
    assert 'process 1: the config cannot be built' in capsys.readouterr().err


def test_errors_that_are_no_mistakes_of_a_config():
    """Those of loops and of the machine; with the variable, all."""
    from mmengine.runner import EpochBasedTrainLoop

    class Loop(EpochBasedTrainLoop):
        def __init__(self):
            pass

        def run(self):
            raise KeyError('own')

    cfg = Config(dict(model=dict(type='A')))
    with pytest.raises(KeyError, match='own'), config_errors(cfg):
        Loop().run()
    full = OSError(errno.ENOSPC, 'full')
    with pytest.raises(OSError, match='full'), config_errors(cfg):
        raise full
    with pytest.raises(InputError, match='KeyError: own'), config_errors(cfg):
        raise KeyError('own')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMDET_ATTN_TRACEBACK', '1')
        with pytest.raises(KeyError, match='own'), config_errors(cfg):
            raise KeyError('own')


def test_complexity(tmp_path):
    """A name that rich would take for a colour stays one."""
    tool = 'tools/analysis_tools/complexity.py'
    config = tmp_path / '[red]a.py'
    config.write_text(backbone('depth=51'))
    assert 'model.backbone: AttentionResNet(dep' in user_error(tool, config)
    config.write_text(BASE)
    _, output = run_here(tool, config)
    assert '[red]a' in output


@pytest.mark.parametrize('tool', ['test', 'predict'])
def test_other_tools(tool, shapes, tmp_path):
    """A plugin that does not exist, and a key that is misspelt."""
    config = tmp_path / 'broken.py'
    config.write_text(
        backbone(
            "plugins=[dict(cfg=dict(type='EAC'), position='after_conv3')]"
        )
    )
    checkpoint = tmp_path / 'a.pth'
    torch.save(dict(state_dict={}), checkpoint)
    rest = ['--data-root', shapes, '--work-dir', tmp_path]
    rest = [shapes / 'val'] if tool == 'predict' else rest
    command = [f'tools/{tool}.py', config, checkpoint, *rest]
    check(user_error(*command), "'EAC'.* ECA")
