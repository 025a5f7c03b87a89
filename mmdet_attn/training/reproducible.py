"""A resumed training computes what an uninterrupted one does, bit for bit.

Random numbers depend on the seed, the process and the place in the training
only. So a resume needs no state of a generator.
"""

import random
from collections.abc import Iterator
from itertools import chain, count, repeat
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import loops
from mmengine.runner.base_loop import BaseLoop
from torch import nn
from torch.utils.data import DataLoader

from mmdet_attn.errors import InputError
from mmdet_attn.weights.load import read_ahead

# What a seed is for. Two uses never share their random numbers.
DATA, ITERATION, START = range(3)
# In mmengine's message hub, and so in checkpoints: the epoch, the iterations
# of it that are done, and their number in a whole epoch.
PLACE = 'place_in_epoch'
# Likewise: the iterations that were done at the last whole validation. Names
# that start with val would be logged as its metrics.
VALIDATED = 'last_validation'


def seed_all(seed: int, use: int, place: int, within: int = 0) -> None:
    """Seed the generators of Python, NumPy and torch, on CPU and GPU.

    Args:
        seed: That of the training.
        use: One of the constants of this module.
        place: The epoch or the iteration.
        within: The batch in the epoch.
    """
    words = np.random.SeedSequence(
        [seed, get_rank(), use, place, within]
    ).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))


class Batch(list):
    """The indices of a batch, and what `seed_all` gets in a worker."""

    def __init__(self, indices: list[int], *seeds: int) -> None:
        super().__init__(indices)
        self.seeds = seeds


class Batches:
    """A batch sampler that knows its place and can start within an epoch.

    Args:
        batches: The batch sampler of a config.
        seed: That of the training.
        endless: Whether epoch follows epoch without an end.

    Attributes:
        epoch: The epoch to start with.
        done: The batches to leave out. None yields no batch at all.
    """

    def __init__(self, batches: Any, seed: int, endless: bool) -> None:
        self.batches = batches
        self.seed = seed
        self.endless = endless
        self.epoch = 0
        self.done: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.done is None:
            return
        done = self.done
        for epoch in count(self.epoch):
            if self.endless and hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            for number, batch in enumerate(self.batches):
                if done:
                    done -= 1
                else:
                    yield Batch(batch, self.seed, DATA, epoch, number)
            if not self.endless:
                return


class Fetch:
    """Load the samples of a batch with random numbers of its own."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.fetch = getattr(dataset, '__getitems__', None)

    def __call__(self, batch: list[int]) -> list:
        if isinstance(batch, Batch):
            seed_all(*batch.seeds)
        if self.fetch:
            return self.fetch(batch)
        return [self.dataset[index] for index in batch]


class Rest:
    """The batches of an endless training behind those that are done.

    mmengine asks for those that are done, too. It gets None, and nothing is
    loaded.
    """

    def __init__(self, loader: DataLoader, done: int) -> None:
        self.batches = chain(repeat(None, done), loader)

    def __next__(self) -> Any:
        return next(self.batches)

    def skip_iter(self, number: int) -> None:
        for _ in range(number):
            next(self)


class EpochBasedTrainLoop(loops.EpochBasedTrainLoop):
    """mmengine's, which can also be resumed within an epoch.

    Takes mmengine's arguments.
    """

    def __init__(self, runner: Any, dataloader: Any, *args, **kwargs) -> None:
        BaseLoop.__init__(self, runner, dataloader)
        self.batches = use_places(self.dataloader, runner.seed, endless=False)
        super().__init__(runner, self.dataloader, *args, **kwargs)

    def done_in_epoch(self) -> int:
        """The iterations of this epoch that are done."""
        info = self.runner.message_hub.runtime_info
        epoch, done, length = info.get(PLACE, (None, 0, 0))
        if epoch != self._epoch:
            return 0
        if length != len(self.dataloader):
            raise InputError(
                f'--resume: the checkpoint was written within an epoch of '
                f'{length} iterations; now an epoch has '
                f'{len(self.dataloader)}. Use the same images, batch size and '
                'number of processes, or resume from the end of an epoch: '
                '--resume FILE.'
            )
        return done

    def run_epoch(self) -> None:
        self.first = self.done_in_epoch()
        self.batches.epoch, self.batches.done = self._epoch, self.first
        seed_all(self.runner.seed, START, self._epoch)
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Any) -> None:
        idx += self.first
        self.runner.message_hub.update_info(
            PLACE, (self._epoch, idx + 1, len(self.dataloader))
        )
        seed_all(self.runner.seed, ITERATION, self._iter)
        super().run_iter(idx, data_batch)


class IterBasedTrainLoop(loops.IterBasedTrainLoop):
    """mmengine's, which loads nothing of what a resume skips.

    Takes mmengine's arguments.
    """

    def __init__(self, runner: Any, dataloader: Any, *args, **kwargs) -> None:
        BaseLoop.__init__(self, runner, dataloader)
        self.batches = use_places(self.dataloader, runner.seed, endless=True)
        super().__init__(runner, self.dataloader, *args, **kwargs)

    def run(self) -> nn.Module:
        skip = not getattr(self, 'fast_forward_on_resume', False)
        self.batches.done = self._iter if skip else 0
        # mmengine 0.10.7 has an iterator by now, before it knows the place.
        self.dataloader._iterator = None
        self.dataloader_iterator = Rest(self.dataloader, self.batches.done)
        seed_all(self.runner.seed, START, 0)
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        seed_all(self.runner.seed, ITERATION, self._iter)
        super().run_iter(data_batch)


class ExactResumeHook(Hook):
    """Store and restore what mmengine's checkpoints leave out.

    That are the buffers of a network where they differ from process to
    process, such as running statistics of batch norm within an epoch, and
    the size of multi-scale training. A resume also begins with the
    validation that follows its checkpoint, if that one may not have ended.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.gathered: list[dict] | None = None

    def before_train(self, runner: Any) -> None:
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            if loop.done_in_epoch():
                return
            done, end = loop.epoch, loop.max_epochs
        elif isinstance(loop, IterBasedTrainLoop):
            done, end = loop.iter, loop.max_iters
        else:
            return
        if runner.message_hub.runtime_info.get(VALIDATED) == loop.iter:
            return
        loop._decide_current_val_interval()
        if (
            runner.val_loop is not None
            and loop.val_begin <= done > 0
            and (done % loop.val_interval == 0 or done == end)
        ):
            runner.logger.info(
                'The validation that follows the checkpoint is done first.'
            )
            runner.val_loop.run()

    def after_val(self, runner: Any) -> None:
        self.gathered = None  # if the best checkpoint was no better

    def before_saving(self, runner: Any) -> None:
        """Gather what is stored. All processes call it."""
        hub = runner.message_hub
        if hub.runtime_info.get('loop_stage') == 'val':  # for the best one
            hub.update_info(VALIDATED, runner.iter)
        self.gathered = all_gather_object(self._own(runner))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        processes = self.gathered or [self._own(runner)]
        self.gathered = None
        first = processes[0]['buffers']
        for process in processes:
            process['buffers'] = {
                name: buffer
                for name, buffer in process['buffers'].items()
                if not torch.equal(buffer, first[name])
            }
        checkpoint['processes'] = processes

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        processes = checkpoint.pop('processes', None)
        if not (processes and runner._resume):
            return
        own = processes[get_rank() % len(processes)]
        checkpoint['state_dict'].update(own['buffers'])
        for name, size in own['sizes'].items():
            _network(runner).get_submodule(name)._input_size = size

    def _own(self, runner: Any) -> dict:
        network = _network(runner)
        stored = network.state_dict().keys()
        return {
            'buffers': {
                name: buffer.cpu().clone()
                for name, buffer in network.named_buffers()
                if name in stored
            },
            'sizes': {
                name: module._input_size
                for name, module in network.named_modules()
                if type(module).__name__ == 'BatchSyncRandomResize'
            },
        }


def use_places(loader: DataLoader, seed: int, endless: bool) -> Batches:
    """Let the random numbers of a loader depend on the place only."""
    batches = Batches(loader.batch_sampler, seed, endless)
    # torch guards this name, for iterators that are at work.
    object.__setattr__(loader, 'batch_sampler', batches)
    # torch asks for this name, which its own type does not declare.
    dataset: Any = loader.dataset
    dataset.__getitems__ = Fetch(dataset)
    return batches


def train_exactly(cfg: Config) -> None:
    """Use our loop instead of mmengine's in the config of a training.

    A resume also takes a seed that was drawn by lot from its checkpoint,
    before the order of the data depends on it.
    """
    loop = cfg.train_cfg
    kind = loop.get('type')
    if kind is None:
        by_epoch = loop.pop('by_epoch', True)
        kind = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    if isinstance(kind, str):
        kind = LOOPS.get(kind)
    if kind in (loops.EpochBasedTrainLoop, loops.IterBasedTrainLoop):
        loop.type = f'mmdet_attn.{kind.__name__}'
    if cfg.get('resume'):
        meta = read_ahead(cfg.load_from).get('meta') or {}
        randomness = cfg.setdefault('randomness', ConfigDict())
        if randomness.get('seed') is None and 'seed' in meta:
            randomness.seed = meta['seed']


def _network(runner: Any) -> nn.Module:
    wrapped = is_model_wrapper(runner.model)
    return runner.model.module if wrapped else runner.model
