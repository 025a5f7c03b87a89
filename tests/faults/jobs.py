"""Run commands as a user would, and know all processes that they start."""

import contextlib
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MARK = 'MMDET_ATTN_FAULTS'
LINE = re.compile(r'Epoch\(train\)\s+\[\s*(\d+)\]\[\s*(\d+)/(\d+)\]')


def environment(**more: str) -> dict[str, str]:
    """The variables of a command."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {
        'PATH': folder + os.pathsep + os.environ['PATH'],
        'PYTHONPATH': str(ROOT),
        'OMP_NUM_THREADS': '1',
        'COLUMNS': '160',
        **more,
    }


def free_port() -> str:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return str(server.getsockname()[1])


def until(condition, limit: float) -> bool:
    """Wait for a condition; whether it came true in time."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Member(NamedTuple):
    """A running process of a job."""

    parent: int
    works: bool
    command: str


class Job:
    """A command and every process that it starts.

    They are known by a variable that they inherit, so that one whose parent
    has ended is found, too.
    """

    def __init__(self, log: Path, *command, **env: str) -> None:
        self.log = log
        self.mark = uuid.uuid4().hex
        with log.open('wb') as file:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=environment(**{MARK: self.mark, **env}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def members(self) -> dict[int, Member]:
        found = {}
        mark = f'{MARK}={self.mark}'.encode()
        for folder in Path('/proc').glob('[0-9]*'):
            # A process may end while it is looked at.
            with contextlib.suppress(OSError, IndexError):
                variables = (folder / 'environ').read_bytes().split(b'\0')
                if mark not in variables:
                    continue
                stat = (folder / 'stat').read_text().rpartition(')')[2]
                command = (folder / 'cmdline').read_bytes()
                found[int(folder.name)] = Member(
                    int(stat.split()[1]),
                    any(v.startswith(b'RANK=') for v in variables),
                    command.replace(b'\0', b' ').decode(errors='replace'),
                )
        return found

    def pid(self, target: str) -> int:
        """The process of the script, of the launcher or of a worker."""
        if target == 'script':
            return self.process.pid
        members = self.members()
        launchers = {pid for pid, m in members.items() if not m.works}
        for pid, member in members.items():
            if member.works and member.parent in launchers:
                return pid if target == 'worker' else member.parent
        return self.process.pid

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        return self.log.read_text(errors='replace')

    @property
    def iterations(self) -> list[int]:
        """The iterations that it has logged, counted from 1."""
        found = (map(int, line) for line in LINE.findall(self.output))
        return [(epoch - 1) * length + i for epoch, i, length in found]

    def send(self, target: str, sent: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid(target), sent)

    def wait(self, limit: float) -> int | None:
        """The exit status; None if it is still running."""
        until(lambda: self.over, limit)
        return self.process.poll()

    def gone(self, limit: float) -> bool:
        """Whether every process ends in time; what is left is killed."""
        ended = until(lambda: not self.members(), limit)
        while members := self.members():
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        self.process.wait()
        return ended


class Ended(NamedTuple):
    """How a script ended. The code is None if it had to be killed."""

    code: int | None
    output: str


def preload() -> None:
    """Import what every script imports, once for all."""
    import mmcv.ops  # noqa: F401
    import mmdet.apis
    import mmdet.models  # noqa: F401
    import torch

    torch.set_num_threads(1)


def _fork(log: Path, folder: Path, script: str, *arguments) -> int:
    """Run a script of the clone in a copy of this process.

    That saves the seconds in which it would import everything. Returns the
    process.
    """
    sys.stdout.flush()
    if child := os.fork():
        return child
    code: Any = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
        os.environ.update(environment())
        sys.argv = [str(ROOT / script), *map(str, arguments)]
        runpy.run_path(sys.argv[0], run_name='__main__')
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_all(
    folder: Path,
    commands: Iterable[tuple[Any, tuple]],
    limit: float = 90,
    processes: int = 2,
) -> Iterator[tuple[Any, Ended]]:
    """Run scripts of the clone, two at a time, in a folder for their files.

    Args:
        folder: Their working directory.
        commands: A key, and the script with its arguments, for each. The next
            is asked for when there is room for it.
        limit: Seconds for each.
        processes: How many run at a time.
    """
    preload()
    folder.mkdir(parents=True, exist_ok=True)
    waiting = iter(commands)
    running: dict[int, tuple[Any, Path, float]] = {}
    more = True
    while more or running:
        while more and len(running) < processes:
            if (entry := next(waiting, None)) is None:
                more = False
                break
            key, command = entry
            log = folder / f'{uuid.uuid4().hex}.log'
            log.touch()
            child = _fork(log, folder, *command)
            running[child] = key, log, time.monotonic() + limit
        time.sleep(0.02)
        for child, (key, log, end) in list(running.items()):
            pid, status = os.waitpid(child, os.WNOHANG)
            late = time.monotonic() > end
            if not pid and not late:
                continue
            if not pid:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            code = None if late else os.waitstatus_to_exitcode(status)
            del running[child]
            yield key, Ended(code, log.read_text(errors='replace'))


def run_one(folder: Path, *command, limit: float = 90) -> Ended:
    return next(run_all(folder, [(None, command)], limit))[1]
