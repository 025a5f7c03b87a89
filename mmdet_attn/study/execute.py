"""Run the trainings of a study on this machine, some at once."""

import contextlib
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmdet_attn.config_files import TOOLS
from mmdet_attn.errors import InputError
from mmdet_attn.study.plan import Run, Study
from mmdet_attn.study.status import FAILED, LOG, is_locked, state_of
from mmdet_attn.weights.save import write_bytes

PAUSE = 0.5  # seconds between two looks at the trainings
# Opened before a fork: a child must not load anything until its exec.
LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None


class Slot(NamedTuple):
    """Where one training runs: its GPUs and its cores."""

    gpus: tuple[str, ...]
    cores: tuple[int, ...]


class Child(NamedTuple):
    """A training that runs.

    Attributes:
        run: The training.
        slot: Where it runs.
        process: Its first process.
        since: Where its part of the log begins.
    """

    run: Run
    slot: Slot
    process: subprocess.Popen
    since: int


def slots(launch: dict[str, Any]) -> list[Slot]:
    """Share the GPUs and the cores of this machine out.

    Raises:
        InputError: There are fewer than the trainings need.
    """
    import torch

    count, each = launch['at_once'], launch['gpus']
    gpus = [str(i) for i in range(torch.cuda.device_count())]
    if visible := os.environ.get('CUDA_VISIBLE_DEVICES'):
        gpus = visible.split(',')[: len(gpus)]
    cores = available_cores()
    own = launch.get('cores') or max(1, len(cores) // count)
    if own * count > len(cores):
        raise InputError(
            f'launch: {count} trainings at once with {own} cores each need '
            f'{own * count} cores, and this machine has {len(cores)}: lower '
            'at_once or cores.'
        )
    if gpus and each * count > len(gpus):
        raise InputError(
            f'launch: {count} trainings at once with {each} GPUs each need '
            f'{each * count} GPUs, and this machine has {len(gpus)}: lower '
            'at_once or gpus.'
        )
    return [
        Slot(
            tuple(gpus[i * each : (i + 1) * each]),
            tuple(cores[i * own : (i + 1) * own]),
        )
        for i in range(count)
    ]


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def free_port() -> int:
    """A port at which nobody listens now.

    Below those that the system gives to connections, and by chance: others
    look for one at the same time.
    """
    from mmdet_attn.training.torchrun import check_port

    while True:
        port = random.SystemRandom().randrange(10000, 32000)
        with contextlib.suppress(InputError):
            check_port(port)
            return port


def command(study: Study, run: Run) -> list[str]:
    """The command that starts a training, or carries it on."""
    config, processes = str(study.config(run)), study.launch['gpus']
    start = [sys.executable, str(TOOLS / 'train.py'), config]
    if processes > 1:
        start = [str(TOOLS / 'dist_train.sh'), config, str(processes)]
    start += ['--work-dir', str(study.work_dir(run)), '--resume']
    if study.changes_of(run).get('non_strict'):
        start.append('--non-strict')
    return start


def start(study: Study, run: Run, slot: Slot) -> Child:
    """Start a training in a slot.

    The main thread must call this: the training gets SIGTERM when the thread
    that started it ends.
    """
    folder = study.work_dir(run)
    folder.mkdir(parents=True, exist_ok=True)
    processes = max(1, study.launch['gpus'])
    # torchrun lies beside the Python that runs this.
    here = str(Path(sys.executable).parent)
    env = os.environ | {
        'PATH': os.pathsep.join([here, os.environ.get('PATH', os.defpath)]),
        'OMP_NUM_THREADS': str(max(1, len(slot.cores) // processes)),
        'CUDA_VISIBLE_DEVICES': ','.join(slot.gpus),
    }
    if processes > 1:
        env['PORT'] = str(free_port())
    parent = os.getpid()

    def follow_parent() -> None:
        if LIBC:
            LIBC.prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(143)
        if hasattr(os, 'sched_setaffinity'):
            os.sched_setaffinity(0, slot.cores)

    with open(folder / LOG, 'a') as log:
        since = log.tell()
        process = subprocess.Popen(
            command(study, run),
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process alone
            preexec_fn=follow_parent,
        )
    return Child(run, slot, process, since)


def note_end(folder: Path, status: int, since: int) -> None:
    """Note why a training has failed, if it has.

    Args:
        folder: The work directory.
        status: How its process ended, as of `Popen.returncode`.
        since: Where its part of the log begins.
    """
    if state_of(folder).word == 'finished':
        return
    with open(folder / LOG, 'rb') as log:
        log.seek(since)
        lines = log.read().decode(errors='replace').split('\n')
    said = [line.strip() for line in lines if line.strip()]
    error = said[-1] if said else 'it has said nothing'
    if status < 0:
        error = f'ended by {signal.Signals(-status).name}'
    elif status == 0:
        error = f'ended without a result: {error}'
    text = json.dumps({'status': status, 'error': error[-300:]})
    write_bytes(folder / FAILED, text.encode())


def run_here(
    study: Study, runs: Sequence[Run], show: Callable[[], None]
) -> None:
    """Run trainings, as many at once as the study says.

    A training that fails does not stop the others. SIGINT and SIGTERM stop
    all trainings after their iteration; each has then saved a checkpoint. A
    second one ends them at once.

    Args:
        study: The study.
        runs: The trainings that have not finished.
        show: Is called about twice a second.

    Raises:
        KeyboardInterrupt: After SIGINT.
        SystemExit: After SIGTERM.
    """
    free = slots(study.launch)
    waiting, active = list(runs), list[Child]()
    received: list[int] = []
    told = 0
    for run in runs:  # what an earlier call has noted
        (study.work_dir(run) / FAILED).unlink(missing_ok=True)
    before = {
        number: signal.signal(number, lambda n, _: received.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while active or (waiting and not received):
            # Another call may have left one, which stops or finishes.
            for run in [] if received else list(waiting):
                if not free:
                    break
                folder = study.work_dir(run)
                if is_locked(folder):
                    continue
                waiting.remove(run)
                if state_of(folder).word != 'finished':
                    active.append(start(study, run, free.pop(0)))
            if told < len(received):
                told = len(received)
                how = signal.SIGTERM if told == 1 else signal.SIGKILL
                for child in active:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.process.pid, how)
            for child in list(active):
                status = child.process.poll()
                if status is not None:
                    active.remove(child)
                    free.append(child.slot)
                    if not received:
                        folder = study.work_dir(child.run)
                        note_end(folder, status, child.since)
            show()
            time.sleep(PAUSE)
    finally:
        for child in active:  # after an error
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGTERM)
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        print(
            '\nStopped. The same command carries on: mmdet-attn study '
            f'{study.folder}',
            flush=True,
        )
        if received[0] == signal.SIGTERM:
            sys.exit(143)
        raise KeyboardInterrupt
