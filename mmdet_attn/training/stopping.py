"""Stop a training on SIGTERM or SIGINT, with a checkpoint to carry on from."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import EMAHook, Hook
from torch.utils.data import DataLoader

from mmdet_attn.launch import leave_group
from mmdet_attn.training.checkpoints import save_now
from mmdet_attn.training.slurm import early

NOTICE = (
    b'The training stops after this iteration, or batch of a validation.\n'
)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopHook(Hook):
    """Stop all processes after the same iteration, and save.

    A validation stops after its batch: a resume repeats it. A second SIGINT
    ends the process at once.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.signal = 0
        self.time = 0.0

    def before_train(self, runner: Any) -> None:
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                protect_workers(loop.dataloader)
        for number in SIGNALS:
            signal.signal(number, self._receive)
        if early:
            self._receive(early.pop(), None)

    def _receive(self, number: int, _: Any) -> None:
        now = time.monotonic()
        # Launchers pass on the Ctrl-C that their workers get as well.
        if number == signal.SIGINT == self.signal and now - self.time > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self.signal:
            self.signal, self.time = number, now
            if get_rank() == 0:
                # print() cannot be used here: it may be at work.
                os.write(2, NOTICE)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        number = torch.tensor(self.signal)
        all_reduce(number, 'max')
        if number and has_stepped(runner):
            file = save_now(runner)
            self._stop(runner, int(number), runner.iter + 1, file, True)

    def after_val_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        if self.signal and has_stepped(runner):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(runner)  # gives back the weights
            file = save_now(runner, validating=True)
            self._stop(runner, self.signal, runner.iter, file, False)

    def _stop(
        self,
        runner: Any,
        number: int,
        done: int,
        file: str | None,
        together: bool,
    ) -> None:
        runner.logger.warning(
            f'Stopped by {signal.Signals(number).name} after iteration {done} '
            f'of {runner.max_iters}. '
            + (
                f'{file} is saved: the same command with --resume carries on.'
                if file
                else 'Nothing is saved: the config has no checkpoint hook.'
            )
        )
        runner.visualizer.close()
        leave_group(128 + number, together)
        sys.exit(128 + number)


def has_stepped(runner: Any) -> bool:
    """Whether no gradients are accumulated, which a stop would lose."""
    return getattr(runner.optim_wrapper, 'should_update', lambda: True)()


@contextmanager
def restore_signals() -> Iterator[None]:
    """Restore what signals do, which a `StopHook` changes, at the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def protect_workers(loader: DataLoader) -> None:
    """Let only its own process end a worker, not a signal to the group.

    The training needs them until its iteration is done.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(start: Any, number: int) -> None:
    if start is not None:
        start(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=_await_end, daemon=True).start()


def _await_end() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
