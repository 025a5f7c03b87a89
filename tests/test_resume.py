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


class Signal(Hook):
    """Send a signal to this process at a point of the training."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration, where='before_train_iter', rank=None):
        self.iteration, self.rank = iteration, rank
        setattr(self, where, self.send)

    def send(self, runner, **_):
        if runner.iter == self.iteration and self.rank in (None, get_rank()):
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


def train(cfg, resume=None, stop=None, interrupt=143) -> Path:
    """Train as tools/train.py does; returns the last checkpoint."""
    use_resume(cfg, resume, save_safely(cfg))
    train_exactly(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(StopHook())
    runner.register_hook(ExactResumeHook())
    if stop is not None:
        runner.register_hook(Signal(*stop))
        with pytest.raises(SystemExit) as ended, restore_signals():
            runner.train()
        assert ended.value.code == interrupt
    else:
        with restore_signals():
            runner.train()
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


@pytest.mark.parametrize('where', [0, 3, 5, 11])
@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(iterations=True),
        {
            'custom_hooks': [dict(type='EMAHook')],
            'train_dataloader.batch_sampler': dict(
                type='mmdet.AspectRatioBatchSampler'
            ),
        },
    ],
    ids=['epochs', 'iterations', 'EMA, aspect ratio'],
)
def test_stopped_at_any_iteration(tmp_path, options, where):
    """The first of a training, the last of an epoch, within, the very last."""
    whole = train(settings(tmp_path / 'whole', **options))
    work = tmp_path / 'work'
    train(settings(work, **options), stop=[where])
    stopped = torch.load(work / f'iter_{where + 1}.pth', weights_only=False)
    assert stopped['meta']['iter'] == where + 1
    assert_equal(train(settings(work, **options), 'auto'), whole)
    best = [sorted(f.name for f in w.glob('best*')) for w in (work, whole.parent)]
    assert best[0] == best[1] != []
