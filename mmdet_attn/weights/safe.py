"""Checkpoints are read without running code of theirs."""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmdet_attn.errors import InputError

FORCE_SAFE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
FORCE_UNSAFE = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def mmengine_globals() -> list:
    """What mmengine stores beside tensors: its log buffers, in numpy."""
    import numpy as np

    core = np._core if hasattr(np, '_core') else np.core
    dtypes = {type(np.dtype(kind)) for kind in np.sctypeDict.values()}
    array = [core.multiarray._reconstruct, core.multiarray.scalar]
    # A log buffer names its statistics by getattr, which could fetch
    # anything; what stands in for it fetches nothing else.
    getattr_ = (_statistic, 'builtins.getattr')
    return [HistoryBuffer, getattr_, np.ndarray, np.dtype, *array, *dtypes]


def _statistic(owner: type, name: str):
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr: {owner}, {name}')


def set_trust(trust: bool) -> None:
    """Decide for this process what reading a checkpoint may do.

    Args:
        trust: Whether a file may run code of its own, as any pickle can.
            Otherwise every ``torch.load``, those inside mmengine included,
            takes tensors, plain Python and :func:`mmengine_globals` only.
    """
    os.environ.pop(FORCE_SAFE if trust else FORCE_UNSAFE, None)
    os.environ[FORCE_UNSAFE if trust else FORCE_SAFE] = '1'
    if not trust:
        torch.serialization.add_safe_globals(mmengine_globals())


@contextmanager
def _own_environment() -> Iterator[None]:
    """Take back what is done to the variables of the environment."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def read_checkpoint(path: str, trust: bool | None = None) -> dict:
    """Read a checkpoint from a file or any address that mmengine knows.

    Args:
        path: The file or address.
        trust: As of :func:`set_trust`, for the whole process. None reads
            this file alone by what was decided before, which is not to trust
            where nothing was.

    Raises:
        InputError: It is missing, is no checkpoint, or holds something that
            only a trusted file may hold.
    """
    if trust is None:
        trust = os.environ.get(FORCE_UNSAFE) == '1'
        with _own_environment():
            return read_checkpoint(path, trust)
    set_trust(trust)
    local = '://' not in path
    if local and not Path(path).is_file():
        raise InputError(f'{path}: no such checkpoint.')
    try:
        if local:
            content = torch.load(
                path, map_location='cpu', weights_only=not trust
            )
        else:
            content = CheckpointLoader.load_checkpoint(path, 'cpu')
    except InputError:
        raise
    except URLError as error:
        raise InputError(
            f'{path} cannot be downloaded ({error.reason}).'
        ) from None
    except Exception as error:  # a damaged file can fail in any way
        culprit = re.search(r'GLOBAL ([\w.]+)', str(error))
        if culprit:
            raise InputError(
                f'{path} wants to import {culprit[1]}, which is neither a '
                'weight nor anything that mmengine stores; loading it could '
                'run any code. If you know who wrote the file: '
                '--trust-checkpoint.'
            ) from None
        reason = re.sub(r'(?s).*WeightsUnpickler error: ', '', str(error))
        raise InputError(
            f'{path} is not a checkpoint that torch can read; it may be '
            f'empty, cut short or of another format '
            f'({type(error).__name__}: {reason.strip().split(chr(10))[0]}).'
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f'{path} holds a {type(content).__name__}, not a checkpoint.'
        )
    return content


def state_dict_of(checkpoint: dict) -> dict[str, Tensor]:
    """The weights of a checkpoint, without a data-parallel prefix."""
    state = checkpoint
    for wrapper in ('state_dict', 'model'):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    return {
        re.sub(r'^module\.', '', key): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
