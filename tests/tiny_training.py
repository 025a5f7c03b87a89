"""A training of a few seconds in this process: a line through points."""

import os
from pathlib import Path

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmdet_attn.weights.load import register


class Points(Dataset):
    """Six inputs; one may have another value."""

    def __init__(self, **values):
        self.metainfo = {'classes': ('point',)}
        generator = torch.Generator().manual_seed(0)
        self.data = torch.randn(6, 2, generator=generator)
        for index, value in values.items():
            self.data[int(index[1:])] = value

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.data[index]


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, *inputs, mode='tensor'):
        height = self.norm(self.line(torch.stack(inputs)))
        if mode == 'loss':
            return {'loss_y': height.square().mean(), 'loss_x': height.mean()}
        return [0]


class Scores(Evaluator):
    """Gives the scores of the epochs."""

    def __init__(self, scores):
        super().__init__([])
        self.scores = list(scores)

    def evaluate(self, size):
        return self.scores.pop(0)


class At(Hook):
    """Do something after an iteration, which counts from 1."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == self.iteration:
            self.action(runner)


def loader(points):
    return DataLoader(points, batch_size=2, collate_fn=list)


def make_runner(
    work,
    hook=None,
    epochs=2,
    points=None,
    by_epoch=True,
    wrapper=None,
    **options,
) -> Runner:
    """Three iterations an epoch, a checkpoint at the end of each."""
    kind = 'mmdet_attn.CheckpointHook'
    loop = {'by_epoch': by_epoch}
    loop |= {'max_epochs': epochs} if by_epoch else {'max_iters': 3 * epochs}
    return Runner(
        model=Line(),
        work_dir=str(work),
        train_dataloader=loader(points or Points()),
        train_cfg=loop,
        optim_wrapper={
            'optimizer': dict(type='SGD', lr=0.1, momentum=0.9),
            **(wrapper or {}),
        },
        default_hooks={
            'checkpoint': dict(
                type=kind, interval=1, by_epoch=by_epoch, **(hook or {})
            ),
        },
        randomness={'seed': 0},
        # mmengine keeps what it knows under this name.
        experiment_name=f'tiny{os.urandom(8).hex()}',
        log_level='ERROR',
        **options,
    )


def resumed(work, checkpoint, *args, **options) -> Runner:
    """A training that carries on from a checkpoint."""
    register(trust=False)  # as a tool does
    options |= {'resume': True, 'load_from': str(checkpoint)}
    return make_runner(work, *args, **options)


def saved(work) -> set[str]:
    """What a training left in its folder, but for its logs."""
    return {f.name for f in Path(work).iterdir() if f.suffix == '.pth'} | {
        f.name for f in Path(work).glob('*.part')
    }
