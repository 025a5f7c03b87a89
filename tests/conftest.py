"""What several test files share."""

import contextlib
import copy
import functools
import io
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from filelock import FileLock
from mmengine.config import Config

from mmdet_attn.config_files import CONFIGS, load_config_file
from mmdet_attn.study.execute import free_port

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / 'shared' / 'data'

# For --cfg-options: worker processes cost more than small sets take to load.
NO_WORKERS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]

# The detector of `trained`: the demo's, and how it becomes a quick one.
DEMO = 'configs/demo/faster_rcnn_r50_eca_shapes.py'
QUICK = [
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    *NO_WORKERS,
    # Detections of an untrained head have low scores; AP must not be zero.
    'model.test_cfg.rcnn.score_thr=0.0',
    'default_hooks.logger.interval=1',
]

torch.set_num_threads(1)
# A shell lets what it runs in the background ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


def need_shared(name: str) -> Path:
    """A real data set that not every clone has beside it."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f'needs the data set {name} in ../shared/data')
    return folder


@functools.cache
def _read_config(name: str) -> Config:
    return load_config_file(CONFIGS / f'{name}.py')


def load_config(name: str) -> Config:
    """A copy of a config of configs/, which is read once."""
    return copy.deepcopy(_read_config(name))


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
        'PORT': str(free_port()),
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


def user_error(*command) -> str:
    """The one message of a command that must fail on bad input.

    Python scripts run in this process, which has imported everything.
    """
    command = [str(part) for part in command]
    if not command[0].endswith('.py'):
        output = run_tool(*command, ok=False)
        assert 'Traceback' not in output, output[-3000:]
        return output
    with tempfile.TemporaryDirectory() as folder:
        if command[0] == 'tools/train.py' and '--work-dir' not in command:
            # Two tests at a time would lock that of the config.
            command[1:1] = '--work-dir', folder
        code, output = run_here(*command)
    assert code == 2, output
    return output


def quick_options(data, work) -> list:
    """Options of a quick training or test; --cfg-options may follow."""
    options = ['--data-root', data, '--work-dir', work]
    return [*options, '--cfg-options', *QUICK]


def box_ap(output: str) -> str:
    """The last box AP that a tool printed."""
    return re.findall(r'coco/bbox_mAP: ([-\d.]+)', output)[-1]


def last_checkpoint(work: Path) -> Path:
    return Path((work / 'last_checkpoint').read_text().strip())


@pytest.fixture(autouse=True)
def own_environment():
    """What a test decides about loading ends with it."""
    with mock.patch.dict(os.environ):
        yield


def once_per_run(factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker of xdist makes for all."""
    base = factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        base = base.parent
    folder, done = base / name, base / f'{name}.done'
    with FileLock(base / f'{name}.lock'):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A very small shapes set. Shared: copy it before a change."""
    from mmdet_attn.datasets.shapes import make_shapes

    return once_per_run(
        tmp_path_factory,
        'shapes',
        lambda folder: make_shapes(folder, train=8, val=4, size=96),
    )


class Training(NamedTuple):
    """A training that has ended. Shared: copy `work` before a change."""

    config: str
    data: Path
    work: Path
    checkpoint: Path
    log: str


@pytest.fixture(scope='session')
def trained(tmp_path_factory, shapes) -> Training:
    """The demo's detector after two epochs in two processes."""

    def train(folder):
        options = quick_options(shapes, folder / 'work')
        log = run_tool('tools/dist_train.sh', DEMO, 2, *options)
        (folder / 'log').write_text(log)

    folder = once_per_run(tmp_path_factory, 'trained', train)
    work = folder / 'work'
    log = (folder / 'log').read_text()
    return Training(DEMO, shapes, work, last_checkpoint(work), log)
