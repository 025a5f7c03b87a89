"""What several test files share."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / 'shared' / 'data'

# For --cfg-options: worker processes cost more than small sets take to load.
NO_WORKERS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]

torch.set_num_threads(1)


def need_shared(name: str) -> Path:
    """A real data set that not every clone has beside it."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f'needs the data set {name} in ../shared/data')
    return folder


def run_tool(*command, ok=True, **env) -> str:
    """Run a command in the clone, as a user would; its output is returned."""
    command = [str(part) for part in command]
    if command[0].endswith('.py'):
        command.insert(0, sys.executable)
    bin_dir = str(Path(sys.executable).parent)
    variables = os.environ | {
        'PATH': bin_dir + os.pathsep + os.environ['PATH'],
        'PYTHONPATH': str(ROOT),
        'OMP_NUM_THREADS': '1',
        # Two tests may start process groups at the same time.
        'PORT': str(20000 + os.getpid() % 20000),
        'COLUMNS': '160',
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=variables | env,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output[-6000:]
    return output


def run_here(*command) -> tuple[int, str]:
    """Run a script in this process, which need not import everything again.

    For what ends before anything is built. Returns its exit status and what
    it printed.
    """
    command = [str(part) for part in command]
    stream, folder, code = io.StringIO(), Path.cwd(), 0
    with (
        mock.patch.dict(os.environ, COLUMNS='160'),
        mock.patch.object(sys, 'argv', command),
        contextlib.redirect_stderr(stream),
        contextlib.redirect_stdout(stream),
    ):
        os.chdir(ROOT)
        try:
            runpy.run_path(command[0], run_name='__main__')
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os.chdir(folder)
    return code, stream.getvalue()


@pytest.fixture(autouse=True)
def own_environment():
    """What a test decides about loading ends with it."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A very small shapes set."""
    from mmdet_attn.datasets.shapes import make_shapes

    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(root, train=8, val=4, size=96)
    return root
