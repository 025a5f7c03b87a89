"""A small training with all that the scenarios need, made once."""

import hashlib
import random
import shutil
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs import ROOT, Job, free_port, run_one

DEMO = 'configs/demo/{}_rcnn_r50_eca_shapes.py'
EPOCHS, LENGTH = 6, 3
LAST = EPOCHS * LENGTH
OPTIONS = {
    'train_cfg.max_epochs': EPOCHS,
    'train_cfg.val_interval': EPOCHS,
    'train_dataloader.batch_size': 2,
    'default_hooks.logger.interval': 1,
} | {
    f'{split}_dataloader.{name}': value
    for split in ('train', 'val', 'test')
    for name, value in (('num_workers', 0), ('persistent_workers', False))
}
VERDICTS = ('survived', 'lost', 'hung', 'executed', 'unnamed', 'skipped')


@dataclass
class Try:
    """One fault, and how it ended. The first thing that is wrong counts."""

    name: str
    verdict: str = 'survived'
    detail: str = ''

    def fail(self, verdict: str, detail: str) -> None:
        if self.verdict == 'survived':
            self.verdict, self.detail = verdict, detail.strip()[-600:]


def value_of(node) -> str:
    """A digest of all values of a checkpoint."""
    import numpy as np
    from torch import Tensor

    if isinstance(node, Tensor):
        node = node.detach().cpu().contiguous().view(-1).numpy()
    if isinstance(node, np.ndarray):
        data = f'{node.dtype}{node.shape}'.encode() + node.tobytes()
        return hashlib.sha256(data).hexdigest()
    if isinstance(node, dict):
        pairs = [f'{key!r}:{value_of(value)}' for key, value in node.items()]
        return hashlib.sha256('\n'.join(pairs).encode()).hexdigest()
    if isinstance(node, (list, tuple)):
        return value_of(dict(enumerate(node)))
    return value_of(vars(node)) if hasattr(node, '__dict__') else repr(node)


def read_complete(file: Path) -> dict | None:
    """A checkpoint; None if it is not complete. Not by the code on trial."""
    import torch

    try:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip():
                return None
        content = torch.load(file, map_location='cpu', weights_only=False)
    except Exception:
        return None
    return content if 'iter' in content.get('meta', {}) else None


def newest(work: Path) -> tuple[int, str, Path | None]:
    """Iteration and weights of the newest complete checkpoint."""
    best: tuple[int, str, Path | None] = 0, '', None
    for file in work.glob('*.pth'):
        content = read_complete(file)
        if content and content['meta']['iter'] > best[0]:
            weights = value_of(content['state_dict'])
            best = content['meta']['iter'], weights, file
    return best


class Lab:
    """What the scenarios share.

    Args:
        folder: An empty folder.
        seed: All that is drawn follows from it.
        short: Whether to draw fewer.
    """

    def __init__(self, folder: Path, seed: int, short: bool) -> None:
        self.folder, self.seed, self.short = folder, seed, short
        self.count = 0

    def random(self, name: str) -> random.Random:
        return random.Random(f'{self.seed} {name}')

    def new(self, name: str) -> Path:
        self.count += 1
        return self.folder / f'{self.count:03d}_{name}'

    @cached_property
    def data(self) -> Path:
        folder = self.folder / 'shapes'
        ended = run_one(
            self.folder,
            'tools/dataset_converters/make_shapes.py',
            folder,
            *('--train', 12, '--val', 4, '--size', 96),
        )
        if ended.code:
            raise RuntimeError(ended.output)
        return folder

    @cached_property
    def config(self) -> Path:
        return self._quick('faster')

    @cached_property
    def masks(self) -> Path:
        return self._quick('mask')

    def _quick(self, kind: str) -> Path:
        """A config of the demo, quick and in one file."""
        from mmengine.config import Config

        cfg = Config.fromfile(ROOT / DEMO.format(kind))
        cfg.merge_from_dict(OPTIONS)
        file = self.folder / f'{kind}.py'
        cfg.dump(file)
        return file

    def arguments(self, work: Path) -> list:
        return [self.config, '--data-root', self.data, '--work-dir', work]

    def train(self, work: Path, *more, **env: str) -> Job:
        """Start the training in two processes."""
        config, *options = self.arguments(work)
        return Job(
            self.new('train.log'),
            *('tools/dist_train.sh', config, 2, *options, *more),
            **{'PORT': free_port(), **env},
        )

    @cached_property
    def undisturbed(self) -> Path:
        """The work directory of a training that nobody disturbs."""
        work = self.new('undisturbed')
        keep = ('--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=-1')
        job = self.train(work, *keep)
        if job.wait(300):
            raise RuntimeError(f'The undisturbed training: {job.output}')
        return work

    @cached_property
    def reference(self) -> dict[int, str]:
        """The undisturbed weights after each epoch, by iteration."""
        weights = {}
        for file in self.undisturbed.glob('epoch_*.pth'):
            content = read_complete(file)
            if content:
                weights[content['meta']['iter']] = value_of(
                    content['state_dict']
                )
        if sorted(weights) != list(range(LENGTH, LAST + 1, LENGTH)):
            raise RuntimeError(f'The undisturbed training: {[*weights]}')
        return weights

    @property
    def checkpoint(self) -> Path:
        return self.undisturbed / f'epoch_{EPOCHS}.pth'

    def copy(self, name: str) -> Path:
        """Its work directory with the last two epochs."""
        work = Path(shutil.copytree(self.undisturbed, self.new(name)))
        for epoch in range(1, EPOCHS - 1):
            (work / f'epoch_{epoch}.pth').unlink()
        return work


def refused(found: Try, ended, *names, codes=(2,)) -> Try:
    """Judge a command that must refuse its input, in one line that says it.

    Args:
        found: Gets the verdict.
        ended: How the command ended.
        names: One of them must be in the message.
        codes: The exit statuses that are right.
    """
    if ended.code is None:
        found.fail('hung', ended.output)
    elif ended.code == 0:
        found.fail('lost', f'went through: {ended.output[-300:]}')
    elif 'Traceback' in ended.output:
        found.fail('unnamed', ended.output)
    elif ended.code not in codes:
        found.fail('unnamed', f'exit {ended.code}: {ended.output[-300:]}')
    else:
        errors = [
            line for line in ended.output.splitlines() if 'error:' in line
        ]
        if not any(str(name) in '\n'.join(errors) for name in names):
            found.fail('unnamed', f'wanted {names[0]}: {ended.output[-300:]}')
    return found
