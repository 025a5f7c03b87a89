"""Trainings that are stopped and resumed end like undisturbed ones."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DEMO, QUICK, ROOT, run_tool
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.runner import CheckpointLoader, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmdet_attn.errors import InputError
from mmdet_attn.study.facts import FactsHook
from mmdet_attn.training.checkpoints import save_safely, use_resume
from mmdet_attn.training.reproducible import ExactResumeHook, train_exactly
from mmdet_attn.training.stopping import (
    StopHook,
    protect_workers,
    restore_signals,
)
from mmdet_attn.weights import load

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

    def __init__(self, scale=False):
        super().__init__()
        if scale:
            self.resize = MODELS.build(
                dict(
                    type='mmdet.BatchSyncRandomResize',
                    random_size_range=(32, 96),
                    interval=3,
                )
            )
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)
        )

    def forward(self, x, mode='tensor'):
        x = torch.stack(x) if isinstance(x, list) else x
        if mode == 'loss' and hasattr(self, 'resize'):
            images, _ = self.resize(torch.ones(1, 1, 64, 32), [])
            x = x + images.shape[2]
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
                raise CrashError
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
        persistent_workers=False,
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
                optimizer=dict(type='AdamW', lr=0.1),
                clip_grad=dict(max_norm=1),
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


class CrashError(Exception):
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
    runner.register_hook(FactsHook())
    with restore_signals():
        if stop is None:
            runner.train()
        else:
            runner.register_hook(Stop(*stop))
            with pytest.raises((CrashError, SystemExit)) as ended:
                runner.train()
            assert getattr(ended.value, 'code', None) in (143, None)
    return Path(Path(cfg.work_dir, 'last_checkpoint').read_text())


def differences(one, other, path='') -> list[str]:
    """Where two checkpoints differ, except for times and names of runs."""
    name = path.rpartition('/')[2]
    if 'time' in name or name in {
        'cfg', 'experiment_name', 'last_ckpt', 'best_ckpt', 'eta',
        'mmengine_version',  # it has the commit of the current folder
        'starts', 'seconds', 'memory_mb',
    }:  # fmt: skip
        return []
    if isinstance(one, dict):
        if set(one) != set(other):
            return [f'{path}: {set(one) ^ set(other)}']
        pairs = [(one[key], other[key], key) for key in one]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f'{path}: {len(one)}, {len(other)}']
        pairs = [
            (*pair, i) for i, pair in enumerate(zip(one, other, strict=True))
        ]
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
    contents = [torch.load(file, weights_only=False) for file in (one, other)]
    assert {'state_dict', 'optimizer', 'message_hub'} <= contents[0].keys()
    assert not differences(*contents)
    facts = [
        json.loads(f.with_name('facts.json').read_text()) for f in (one, other)
    ]
    for key in ('finished', 'schedule', 'loss', 'evaluations', 'seed'):
        assert facts[0][key] == facts[1][key], key


@pytest.fixture(autouse=True)
def checked_loading(monkeypatch):
    """Read checkpoints as the tools do, in this test only."""
    schemes = dict(CheckpointLoader._schemes)
    monkeypatch.setattr(CheckpointLoader, '_schemes', schemes)
    monkeypatch.setattr(load, '_trust', None)
    load.register(False)


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


def test_nothing_is_loaded_twice(tmp_path, monkeypatch):
    """A resume by iterations skips indices, not images."""
    options = dict(iterations=True, workers=0)
    train(settings(tmp_path, **options), stop=[6])
    loaded = []

    def count(self, sample):
        loaded.append(sample['sample_idx'])
        return Steady.transform(self, sample)

    monkeypatch.setattr(Augment, 'transform', count)
    train(settings(tmp_path, **options), 'auto')
    # Iterations 8 to 12 of batches of 3, each fourth with 2.
    assert len(loaded) == 5 * 3 - 2


def test_drawn_seed_is_kept(tmp_path):
    """Without a seed in the config, the order of the data goes on."""
    options = {'randomness': dict()}
    first = train(settings(tmp_path / '1', **options), stop=[6])
    cfg = settings(tmp_path / '2', **options)
    seed = torch.load(first, weights_only=False)['meta']['seed']
    end = train(settings(tmp_path / '1', **options), 'auto')
    cfg.randomness = dict(seed=seed)
    assert_equal(end, train(cfg))


def test_another_length_of_epochs(tmp_path):
    """Within an epoch, the place would be lost."""
    train(settings(tmp_path), stop=[6])
    cfg = settings(tmp_path, **{'train_dataloader.batch_size': 4})
    with pytest.raises(InputError, match='now an epoch has 3'):
        train(cfg, 'auto')
    # From the end of an epoch it can go on.
    train(cfg, str(tmp_path / 'epoch_1.pth'))
    assert (tmp_path / 'epoch_3.pth').exists()


def test_size_of_multi_scale_training(tmp_path, whole):
    """mmdet draws it every few iterations, and keeps it for the next."""
    options = {'model.scale': True}
    work = tmp_path / 'work'
    train(settings(work, **options), stop=[6])
    sizes = torch.load(work / 'iter_7.pth', weights_only=False)['processes']
    assert sizes[0]['sizes'] == {'resize': (64, 32)}
    assert_equal(train(settings(work, **options), 'auto'), whole(**options))


def test_signals_end(tmp_path):
    """What signals did before a training, they do after it."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(settings(tmp_path), stop=[0])
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert before == after


def interrupt_twice(pause: float) -> None:
    hook = StopHook()
    signal.signal(signal.SIGINT, hook._receive)
    os.kill(os.getpid(), signal.SIGINT)
    assert hook.signal == signal.SIGINT
    hook.time -= pause
    os.kill(os.getpid(), signal.SIGINT)


# A launcher passes on a Ctrl-C that its processes get, too: both at once.
@pytest.mark.parametrize(('pause', 'code'), [(0, 0), (2, -signal.SIGINT)])
def test_second_interrupt(pause, code):
    process = multiprocessing.get_context('fork').Process(
        target=interrupt_twice, args=(pause,)
    )
    process.start()
    process.join(60)
    assert process.exitcode == code


def test_workers_outlive_a_signal_to_the_group():
    """They are needed until the iteration ends; then they end."""
    loader = DataLoader(range(100), num_workers=1)
    protect_workers(loader)
    batches = iter(loader)
    assert next(batches) == 0
    (worker,) = batches._workers
    for name in ('TERM', 'INT'):  # from a process that is not their parent
        subprocess.run(['kill', f'-{name}', str(worker.pid)], check=True)
    assert [int(batch) for batch in batches] == list(range(1, 100))
    loader = DataLoader(range(100), num_workers=1)
    protect_workers(loader)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


# --- Whole detectors


@pytest.fixture
def stopping_config(tmp_path) -> str:
    """The demo's config; process 1 gets SIGTERM in the fifth iteration."""
    (tmp_path / 'stop_in_test.py').write_text(
        """import os, signal
from mmengine.dist import get_rank
from mmengine.hooks import Hook
class Stop(Hook):
    def before_train_iter(self, runner, **_):
        if runner.iter == 4 and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
"""
    )
    config = tmp_path / 'stop.py'
    config.write_text(
        f'_base_ = {str(ROOT / DEMO)!r}\n'
        "custom_hooks = [dict(type='stop_in_test.Stop')]\n"
    )
    return str(config)


@slow
def test_two_processes(shapes, tmp_path, stopping_config):
    """Stopped by a signal to one of them, and resumed between epochs."""

    def train(config, work, *arguments, ok=True):
        output = run_tool(
            *('tools/dist_train.sh', config, 2, '--data-root', shapes),
            *('--work-dir', tmp_path / work, *arguments),
            *('--cfg-options', *QUICK, 'train_dataloader.batch_size=1'),
            *('train_dataloader.num_workers=1', 'train_cfg.val_interval=1'),
            'train_dataloader.persistent_workers=True',
            'default_hooks.checkpoint.max_keep_ckpts=-1',
            ok=ok,
            PYTHONPATH=f'{ROOT}:{tmp_path}',
        )
        assert ok or 'Stopped by SIGTERM after iteration 5 of 8' in output
        return tmp_path / work / 'epoch_2.pth'

    whole = train(DEMO, 'whole')
    first = whole.with_name('epoch_1.pth')
    assert_equal(train(DEMO, 'between', '--resume', first), whole)
    train(stopping_config, 'within', ok=False)
    stopped = torch.load(tmp_path / 'within/iter_5.pth', weights_only=False)
    # Batch norm learns in each process.
    assert len(stopped['processes'][1]['buffers']) > 100
    assert_equal(train(DEMO, 'within', '--resume'), whole)


@slow
def test_interrupt(shapes, tmp_path):
    """Ctrl-C, which goes to workers as well; other workers go on."""

    def command(work, workers):
        return [
            *(sys.executable, 'tools/train.py', DEMO, '--data-root', shapes),
            *('--work-dir', tmp_path / work, '--cfg-options', *QUICK),
            *('train_dataloader.batch_size=2', 'train_cfg.val_interval=1'),
            f'train_dataloader.num_workers={workers}',
        ]

    # The number of threads decides about the last bits.
    environment = os.environ | {
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': str(ROOT),
    }
    for moment, code in (('import', 130), ('[1][1/4]', 130)):
        log = tmp_path / 'log'
        with log.open('w') as stream:
            process = subprocess.Popen(
                command('work', 2),
                cwd=ROOT,
                env=environment,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            if moment == 'import':
                time.sleep(1)
            else:
                while moment not in log.read_text():
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(100) % 256 in (code, 256 - signal.SIGINT)
        if moment != 'import':
            assert process.returncode == 130
            assert 'Traceback' not in log.read_text()
            assert '--resume carries on' in log.read_text()
    run_tool(*command('work', 0)[1:], 'resume=True')
    run_tool(*command('whole', 0)[1:])
    assert_equal(tmp_path / 'work/epoch_2.pth', tmp_path / 'whole/epoch_2.pth')
