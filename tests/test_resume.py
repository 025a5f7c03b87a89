"""Trainings that are stopped and resumed end like undisturbed ones."""

import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.training.checkpoints import save_safely, use_resume
from mmdet_attn.training.reproducible import (
    Batches,
    ExactResumeHook,
    train_exactly,
)
from mmdet_attn.training.stopping import StopHook, restore_signals
from tests.conftest import DEMO, QUICK, ROOT, run_tool

slow = pytest.mark.slow
IMAGES = 11
numbers = itertools.count()


# --- A training in this process


class Augment(BaseTransform):
    """Draw from all generators; now and then ask for another sample."""

    def transform(self, results):
        drawn = [random.random(), np.random.rand(), float(torch.rand(()))]
        if drawn[0] < 0.1:
            return None
        return {'x': torch.tensor([*drawn, float(results['sample_idx'])])}


class Steady(BaseTransform):
    def transform(self, results):
        return {'x': torch.full((4,), float(results['sample_idx']))}


class Samples(BaseDataset):
    METAINFO = {'classes': ('one', 'two')}

    def load_data_list(self):
        # Groups of the aspect ratio, and classes of ClassBalancedDataset.
        return [
            {'width': 1 + i % 3, 'height': 2, 'sample_idx': i}
            for i in range(IMAGES)
        ]

    def get_cat_ids(self, index):
        return [int(index < 2)]


class Net(BaseModel):
    """Batch norm and random numbers of all generators."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)
        )

    def forward(self, x, mode='tensor'):
        x = torch.stack(x) if isinstance(x, list) else x
        y = self.layers(x)
        if mode == 'predict':
            return [y.mean()]
        noise = random.random() + np.random.rand()
        return {'loss': ((y - noise) ** 2).mean()}


class Output(BaseMetric):
    """A score that rises and falls."""

    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0]))

    def compute_metrics(self, results):
        return {'score': float(np.sin(1000 * np.mean(results)))}


class Stop(Hook):
    """Stop the training at a point, by a signal or by an exception."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration, where='before_train_iter', crash=False):
        self.iteration, self.crash = iteration, crash
        setattr(self, where, self.stop)

    def stop(self, runner, **_):
        if runner.iter == self.iteration:
            if self.crash:
                raise Crash
            os.kill(os.getpid(), signal.SIGTERM)


for registry, kind in (
    (DATASETS, Samples),
    (MODELS, Net),
    (METRICS, Output),
    (TRANSFORMS, Augment),
    (TRANSFORMS, Steady),
):
    registry.register_module(module=kind, force=True)


def settings(work, iterations=False, wrapper=None, workers=0, **changes):
    """The config of a training of 3 epochs with 4 iterations each."""
    samples = dict(type='Samples', serialize_data=False)
    dataset = dict(**samples, pipeline=[dict(type='Augment')])
    if wrapper == 'ConcatDataset':
        dataset = dict(type=wrapper, datasets=[dataset])
    elif wrapper:
        options = dict(RepeatDataset=dict(times=1)).get(wrapper)
        options = options or dict(oversample_thr=1e-3)
        dataset = dict(type=wrapper, dataset=dataset, **options)
    loader = dict(
        batch_size=3,
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dataset,
    )
    cfg = Config(
        dict(
            work_dir=str(work),
            experiment_name=f'exact{next(numbers)}',
            model=dict(type='Net'),
            train_dataloader=loader,
            val_dataloader=dict(
                batch_size=3,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(**samples, pipeline=[dict(type='Steady')]),
            ),
            val_evaluator=dict(type='Output'),
            val_cfg=dict(),
            train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
            optim_wrapper=dict(
                optimizer=dict(type='AdamW', lr=0.1), clip_grad=dict(max_norm=1)
            ),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, begin=0, end=7),
                dict(type='MultiStepLR', by_epoch=True, milestones=[1, 2]),
            ],
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook',
                    interval=1,
                    save_best='score',
                    rule='greater',
                ),
                logger=dict(type='LoggerHook', interval=1),
            ),
            randomness=dict(seed=1),
            log_level='ERROR',
        )
    )
    if iterations:
        cfg.train_cfg = dict(by_epoch=False, max_iters=12, val_interval=5)
        cfg.param_scheduler = cfg.param_scheduler[:1]
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=4)
    cfg.merge_from_dict(changes)
    return cfg


class Crash(Exception):
    pass


def train(cfg, resume=None, stop=None) -> Path:
    """Train as tools/train.py does; returns the last checkpoint.

    Args:
        cfg: The config.
        resume: As of `--resume`.
        stop: Arguments of the hook that stops the training.
    """
    use_resume(cfg, resume, save_safely(cfg))
    train_exactly(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(StopHook())
    runner.register_hook(ExactResumeHook())
    with restore_signals():
        if stop is None:
            runner.train()
        else:
            runner.register_hook(Stop(*stop))
            with pytest.raises((Crash, SystemExit)) as ended:
                runner.train()
            assert getattr(ended.value, 'code', None) in (143, None)
    return Path(Path(cfg.work_dir, 'last_checkpoint').read_text())


def differences(one, other, path='') -> list[str]:
    """Where two checkpoints differ, except for times and names of runs."""
    name = path.rpartition('/')[2]
    if 'time' in name or name in {
        'cfg', 'experiment_name', 'last_ckpt', 'best_ckpt', 'eta',
    }:  # fmt: skip
        return []
    if isinstance(one, dict):
        if set(one) != set(other):
            return [f'{path}: {set(one) ^ set(other)}']
        pairs = [(one[key], other[key], key) for key in one]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f'{path}: {len(one)}, {len(other)}']
        pairs = [(*pair, i) for i, pair in enumerate(zip(one, other))]
    else:
        if isinstance(one, torch.Tensor):
            same = torch.equal(one, other)
        elif isinstance(one, HistoryBuffer):
            same = np.array_equal(one.data, other.data)
        else:
            same = np.array_equal(one, other)
        return [] if same else [path]
    return [
        found
        for a, b, key in pairs
        for found in differences(a, b, f'{path}/{key}')
    ]


def assert_equal(one: Path, other: Path) -> None:
    assert one.name == other.name
    contents = [
        torch.load(file, weights_only=False) for file in (one, other)
    ]
    assert {'state_dict', 'optimizer', 'message_hub'} <= contents[0].keys()
    assert not differences(*contents)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The last checkpoint of an undisturbed training, by its options."""
    folder = tmp_path_factory.mktemp('whole')
    done = {}

    def find(**options) -> Path:
        key = repr(options)
        if key not in done:
            work = folder / str(len(done))
            done[key] = train(settings(work, **options))
        return done[key]

    return find


EMA = {
    'custom_hooks': [dict(type='EMAHook')],
    'train_dataloader.batch_sampler': dict(
        type='mmdet.AspectRatioBatchSampler'
    ),
}
STEPS = {'optim_wrapper.accumulative_counts': 3}
INFINITE = {
    'iterations': True,
    'train_dataloader.sampler': dict(type='InfiniteSampler', _delete_=True),
}


@pytest.mark.parametrize(
    ('options', 'stop', 'saved'),
    [
        # The first iteration, the last of an epoch, one within, the last.
        ({}, [0], 'iter_1'),
        ({}, [3], 'iter_4'),
        ({}, [6], 'iter_7'),
        ({}, [11], 'iter_12'),
        # Within a validation, whose epoch has a checkpoint or has none.
        ({}, [4, 'before_val_iter'], 'epoch_1'),
        ({'default_hooks.checkpoint.interval': 2},
         [4, 'before_val_iter'], 'iter_4'),
        ({**EMA, 'default_hooks.checkpoint.interval': 3},
         [8, 'before_val_iter'], 'iter_8'),
        # Without notice: between epochs, and in a validation.
        ({}, [4, 'before_train_epoch', True], 'epoch_1'),
        ({}, [6, 'before_train_iter', True], 'epoch_1'),
        ({}, [8, 'before_val_iter', True], 'epoch_2'),
        (EMA, [5], 'iter_6'),
        (EMA, [4, 'before_train_epoch', True], 'epoch_1'),
        # Three iterations make one step: the stop waits for its end.
        (STEPS, [3], 'iter_6'),
        ({'iterations': True}, [1], 'iter_2'),
        ({'iterations': True}, [6], 'iter_7'),
        ({'iterations': True}, [5, 'before_val_iter'], 'iter_5'),
        ({'iterations': True}, [5, 'before_val_iter', True], 'iter_4'),
        (INFINITE, [6], 'iter_7'),
    ],
)  # fmt: skip
def test_same_end(tmp_path, whole, options, stop, saved):
    work = tmp_path / 'work'
    stopped = train(settings(work, **options), stop=stop)
    assert stopped.stem == saved
    end = train(settings(work, **options), 'auto')
    undisturbed = whole(**options)
    assert_equal(end, undisturbed)
    best, same = (
        [file.name for file in folder.glob('best*')]
        for folder in (work, undisturbed.parent)
    )
    assert best == same
    assert len(best) == 1


@pytest.mark.parametrize(
    'wrapper', [None, 'RepeatDataset', 'ConcatDataset', 'ClassBalancedDataset']
)
def test_workers_make_no_difference(tmp_path, whole, wrapper):
    """Each batch has random numbers of its own, whoever loads it."""
    one = whole(wrapper=wrapper)
    two = train(settings(tmp_path, wrapper=wrapper, workers=2))
    assert_equal(one, two)
