"""The exception for what a user can put right, and how commands show it."""

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What `pip install mmdet_attn` leaves out: how to get it, names of imports.
EXTRAS = {
    "'mmdet_attn[tools]'": {
        'PIL',
        'faster_coco_eval',
        'jinja2',
        'matplotlib',
        'numpy',
        'pycocotools',
        'rich',
        'scipy',
        'shtab',
        'submitit',
    },
    "'mmdet_attn[onnx]'": {'onnx', 'onnxruntime', 'onnxscript'},
    "--no-build-isolation 'mmdet_attn[onedl]'": {'cv2', 'mmcv', 'mmdet'},
}
# What keeps a file from being written, and the way out.
UNWRITTEN = dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT), 'free some space, then go on'
) | dict.fromkeys((errno.EROFS, errno.EACCES), 'give another folder')


class InputError(ValueError):
    """Bad input: the message names the value, the rule and the way out."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """How to install what is missing; None if it is in no extra."""
    package = (error.name or '').partition('.')[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            return f'{package} is not installed: pip install {extra}'
    return None


def _message(error: Exception) -> str | None:
    """What a user can do about an error; None if it is an error of ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error)
    if isinstance(error, OSError) and error.errno in UNWRITTEN:
        place = f' ({error.filename})' if error.filename else ''
        return f'{error.strerror}{place}: {UNWRITTEN[error.errno]}.'
    return None


def printable(text: str) -> str:
    """The text with control characters, but for line ends, written out.

    Names in files of others could steer a terminal with them.
    """
    return ''.join(
        sign if sign.isprintable() or sign == '\n' else repr(sign)[1:-1]
        for sign in text
    )


@contextmanager
def user_errors() -> Iterator[None]:
    """Show what a user can put right as one line, exit with 2.

    Ctrl-C ends the process, as it ends others.
    """
    # A full disk fails a log, too, with a traceback for each line.
    logging.raiseExceptions = False
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except RuntimeError as error:
        lost = type(error).__name__ == 'DistBackendError'
        if not lost and '/gloo/' not in str(error):
            raise
        # What ended the other one is said elsewhere: by it, or its launcher.
        reason = str(error).rpartition('] ')[2].partition('. ')[0]
        rank = os.environ.get('RANK', '0')
        print(
            f'{Path(sys.argv[0]).name}: process {rank}: another process has '
            f'ended or cannot be reached ({reason}).',
            file=sys.stderr,
        )
        _exit(1)
    except (InputError, ModuleNotFoundError, OSError) as error:
        message = _message(error)
        if message is None:
            raise
        if os.environ.get('LOCAL_RANK', '0') != '0':
            # Most often the first process of the node says the same, and its
            # end ends this one, whose exit code counts for srun.
            signal.signal(signal.SIGTERM, lambda *_: os._exit(2))
            time.sleep(5)
        tool = Path(sys.argv[0]).name
        print(f'{tool}: error: {printable(str(message))}', file=sys.stderr)
        _exit(2)


def _exit(status: int) -> None:
    """Exit, past the teardown of C++ where there is a process group."""
    launch = sys.modules.get('mmdet_attn.launch')
    if launch:
        launch.leave_group(status, together=False)
    sys.exit(status)
