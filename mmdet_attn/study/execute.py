"""Run the trainings of a study on this machine, some at once."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmdet_attn.config_files import TOOLS
from mmdet_attn.errors import InputError
from mmdet_attn.study.plan import Run, Study
from mmdet_attn.study.status import FAILED, is_locked, state_of

ERROR_LINES = 3


class Slot(NamedTuple):
    """Where one training runs: its GPUs and its cores."""

    gpus: tuple[int, ...]
    cores: tuple[int, ...]


class Child(NamedTuple):
    """A training that runs."""

    run: Run
    slot: Slot
    process: subprocess.Popen


def slots(launch: dict[str, Any]) -> list[Slot]:
    """Share the GPUs and the cores of this machine out.

    Raises:
        InputError: There are fewer than the trainings need.
    """
    import torch

    count, each = launch['at_once'], launch['gpus']
    there = torch.cuda.device_count()
    cores = sorted(os.sched_getaffinity(0))
    own = launch.get('cores') or max(1, len(cores) // count)
    if own * count > len(cores):
        raise InputError(
            f'launch: {count} trainings at once with {own} cores each need '
            f'{own * count} cores, and this machine has {len(cores)}: lower '
            'at_once or cores.'
        )
    if there and each * count > there:
        raise InputError(
            f'launch: {count} trainings at once with {each} GPUs each need '
            f'{each * count} GPUs, and this machine has {there}: lower '
            'at_once or gpus.'
        )
    return [
        Slot(
            tuple(range(i * each, (i + 1) * each)) if there else (),
            tuple(cores[i * own : (i + 1) * own]),
        )
        for i in range(count)
    ]


def free_port() -> int:
    """A port at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


def command(study: Study, run: Run) -> list[str]:
    """The command that starts a training, or carries it on."""
    config, processes = str(study.config(run)), study.launch['gpus']
    start = [sys.executable, str(TOOLS / 'train.py'), config]
    if processes > 1:
        start = [str(TOOLS / 'dist_train.sh'), config, str(processes)]
    return [*start, '--work-dir', str(study.work_dir(run)), '--resume']


def follow_parent() -> None:
    """Let a child stop, and save, when this process is killed."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def start(study: Study, run: Run, slot: Slot) -> Child:
    """Start a training in a slot."""
    folder = study.work_dir(run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILED).unlink(missing_ok=True)
    # torchrun lies beside the Python that runs this.
    here = str(Path(sys.executable).parent)
    env = os.environ | {
        'PATH': os.pathsep.join([here, os.environ.get('PATH', os.defpath)]),
        'OMP_NUM_THREADS': str(max(1, len(slot.cores))),
        'PORT': str(free_port()),
    }
    if slot.gpus:
        env['CUDA_VISIBLE_DEVICES'] = ','.join(map(str, slot.gpus))

    def prepare() -> None:
        follow_parent()
        os.sched_setaffinity(0, slot.cores)

    with open(folder / 'train.log', 'a') as log:
        process = subprocess.Popen(
            command(study, run),
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process alone
            preexec_fn=prepare,
        )
    return Child(run, slot, process)


def note_end(study: Study, run: Run, status: int) -> None:
    """Note why a training has failed, if it has."""
    folder = study.work_dir(run)
    if state_of(folder).word == 'finished':
        return
    log = (folder / 'train.log').read_text(errors='replace')
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    error = lines[-1] if lines else 'no output'
    if status < 0:
        error = f'ended by {signal.Signals(-status).name}'
    text = json.dumps({'status': status, 'error': error[-300:]})
    (folder / FAILED).write_text(text)


def run_here(
    study: Study, runs: Sequence[Run], show: Callable[[], None]
) -> None:
    """Run trainings, as many at once as the study says.

    A training that fails does not stop the others. SIGINT and SIGTERM stop
    all trainings after their iteration; each has then saved a checkpoint.

    Args:
        study: The study.
        runs: The trainings that have not finished.
        show: Is called every second.
    """
    free = slots(study.launch)
    waiting, active = list(runs), list[Child]()
    stopped = 0

    def stop(number: int, _: Any) -> None:
        nonlocal stopped
        stopped += 1
        how = signal.SIGTERM if stopped == 1 else signal.SIGKILL
        for child in active:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, how)

    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while active or (waiting and not stopped):
            ready = [
                run for run in waiting if not is_locked(study.work_dir(run))
            ]
            while free and ready and not stopped:
                run = ready.pop(0)
                waiting.remove(run)
                active.append(start(study, run, free.pop(0)))
            for child in list(active):
                status = child.process.poll()
                if status is not None:
                    active.remove(child)
                    free.append(child.slot)
                    if not stopped:
                        note_end(study, child.run, status)
            show()
            time.sleep(0.5)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        raise KeyboardInterrupt
