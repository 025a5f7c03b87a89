"""No process outlives its training, and no two share a work directory."""

import ctypes
import errno
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

from mmengine.dist import broadcast_object_list
from mmengine.logging import print_log

from mmdet_attn.errors import InputError

# Our launcher sets it to its process id.
LAUNCHER = 'MMDET_ATTN_LAUNCHER'
RANKS = {
    'pytorch': 'RANK',
    'slurm': 'SLURM_PROCID',
    'mpi': 'OMPI_COMM_WORLD_RANK',
}
# A file, kept open: closing it gives the lock away.
_locks: list[int] = []


def end_with_parent() -> None:
    """End this process with torchrun, and its own children with it.

    By SIGKILL, as a process whose launcher is gone may wait for others for
    ever. On Linux only; elsewhere this does nothing.
    """
    if sys.platform != 'linux':
        return
    prctl = ctypes.CDLL(None).prctl

    def follow() -> None:
        prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG

    os.register_at_fork(after_in_child=follow)
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        follow()
    # The launcher may have ended before this process asked to follow it.
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher not in (None, str(os.getppid())):
        os.kill(os.getpid(), signal.SIGKILL)


def lock(folder: str, launcher: str) -> None:
    """Keep other trainings out of a work directory.

    The lock ends with the process, however that ends.

    Args:
        folder: The work directory.
        launcher: As of `--launcher`. The first process holds the lock.

    Raises:
        InputError: Another training holds the lock, or the folder cannot be
            written.
    """
    found: list[str | None] = [None, None]
    if os.environ.get(RANKS.get(launcher, ''), '0') == '0':
        found = take_lock(folder)
    broadcast_object_list(found)
    holder, failure = found
    if failure:
        raise InputError(f'--work-dir {folder} cannot be written: {failure}.')
    if holder:
        raise InputError(
            f'{folder} belongs to another training that is still running '
            f'({holder}): end it, or give another --work-dir.'
        )


def take_lock(folder: str) -> list[str | None]:
    """Lock a folder until this process ends.

    Returns:
        Who holds the lock, if not this process; why there can be none.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = os.open(Path(folder, 'lock'), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        return [None, error.strerror]
    _locks.append(file)
    try:
        import fcntl  # not on Windows

        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # `study status` may just have asked whether a training runs.
            time.sleep(0.5)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        if getattr(error, 'errno', None) in (errno.EACCES, errno.EAGAIN):
            return [os.read(file, 1000).decode() or 'unknown', None]
        print_log(
            f'{folder} cannot be locked ({error}): make sure that no '
            'other training uses it.',
            'current',
            logging.WARNING,
        )
        return [None, None]
    os.ftruncate(file, 0)
    since = time.strftime('%Y-%m-%d %H:%M:%S')
    holder = f'{socket.gethostname()}, process {os.getpid()}, since {since}'
    os.write(file, holder.encode())
    return [None, None]
