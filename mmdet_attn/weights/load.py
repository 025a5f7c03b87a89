"""Read checkpoints, without running code that they carry."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from zipfile import BadZipFile, ZipFile

import mmengine
import numpy as np
import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import HistoryBuffer
from mmengine.runner import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_torchvision_models,
)
from mmengine.runner.checkpoint import _get_mmengine_home
from mmengine.utils import apply_to
from torch import Tensor

from mmdet_attn.errors import InputError

# mmengine imports torchvision for newer models only.
TORCHVISION = Path(mmengine.__file__).parent / 'hub' / 'torchvision_0.12.json'

# What `register` decided for this process; None is nothing.
_trust: bool | None = None
# Checkpoints that were read before mmengine asks for them.
_ahead: dict[str, dict] = {}


def register(trust: bool) -> None:
    """Let mmengine read every checkpoint of this process by this module.

    For tools. A library must not decide how others load.

    Args:
        trust: Whether checkpoints may run code of their own, as any pickle
            can. Otherwise they may hold tensors, plain Python and what
            mmengine stores beside them.
    """
    global _trust
    _trust = trust
    # mmengine tries patterns in reverse order: this one, which fits every
    # address, comes first.
    CheckpointLoader.register_scheme('~*', load_from_checked, force=True)


def read_ahead(address: str, trust: bool | None = None) -> dict:
    """Read a checkpoint before any work is done, and keep it for mmengine.

    mmengine gets the content when it asks for this address, once. So the
    file is read once and held once.

    Args:
        address: As of `read_checkpoint`.
        trust: As of `register`, which this calls. None leaves it as it is.
    """
    if trust is not None:
        register(trust)
    if address not in _ahead:
        _ahead[address] = read_checkpoint(address)
    return _ahead[address]


def keep_ahead(address: str, content: dict) -> None:
    """Give mmengine this content when it asks for this address, once."""
    register(trust=False)
    _ahead[address] = content


# mmengine logs the name behind the first ten characters as the backend.
def load_from_checked(filename: str, map_location: Any = None) -> dict:
    """The loader that mmengine calls."""
    content = _ahead.pop(filename, None)
    if content is None or callable(map_location):
        return read_checkpoint(filename, map_location=map_location)
    if map_location is None or torch.device(map_location).type == 'cpu':
        return content
    return apply_to(
        content,
        lambda value: isinstance(value, Tensor),
        lambda value: value.to(map_location),
    )


def read_checkpoint(
    address: str,
    trust: bool | None = None,
    map_location: Any = 'cpu',
    only_structure: bool = False,
) -> dict:
    """Read a checkpoint from a file or any address that mmengine knows.

    Args:
        address: The file or address.
        trust: As of `register`. None takes what `register` decided. Where it
            was not called, torch's own variable
            `TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD` decides.
        map_location: As of `torch.load`.
        only_structure: Leave the values of tensors on disk, unchecked. This
            is quick.

    Raises:
        InputError: The checkpoint is missing, cannot be read, or holds
            something that only a trusted file may hold.
    """
    if trust is None:
        trust = _trust
    if trust is None:
        trust = os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD') == '1'
    try:
        file = _fetch(address)
    except (ImportError, RuntimeError) as error:
        raise InputError(f'{address} cannot be fetched: {error}') from None
    try:
        zipped = _is_zip(file)
        if zipped and not only_structure:
            _check_sums(file)
        allowed = torch.serialization.get_safe_globals()
        ours = [name for name in _mmengine_globals() if name not in allowed]
        with torch.serialization.safe_globals(ours):
            content = torch.load(
                file,
                map_location=map_location,
                weights_only=not trust,
                mmap=zipped and only_structure,
            )
    except Exception as error:  # a damaged file can fail in any way
        culprit = re.search(r'GLOBAL ([\w.]+)', str(error))
        if culprit:
            raise InputError(
                f'{address} wants to import {culprit[1]}, which is neither a '
                'weight nor anything that mmengine stores; loading it could '
                'run any code. If you know who wrote the file: '
                '--trust-checkpoint.'
            ) from None
        reason = re.sub(r'(?s).*WeightsUnpickler error: ', '', str(error))
        raise InputError(
            f'{address} is not a checkpoint that torch can read; it may be '
            f'empty, cut short or of another format '
            f'({type(error).__name__}: {reason.strip().split(chr(10))[0]}).'
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f'{address} holds a {type(content).__name__}, not a checkpoint.'
        )
    meta = content.get('meta')
    if isinstance(meta, dict) and not trust:
        # mmengine would run this text as Python, to resume.
        meta.pop('config', None)
    return content


def _is_zip(file: Path) -> bool:
    """Whether torch reads it as a zip file; older ones are pickles."""
    with open(file, 'rb') as stream:
        return stream.read(4) == b'PK\x03\x04'


def _check_sums(file: Path) -> None:
    """Compare each record with its check sum, which torch does not."""
    with ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged:
        raise BadZipFile(f'{damaged} does not match its check sum')


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


def not_finite(state: Mapping[str, Any]) -> list[str]:
    """The names of tensors with a value that is NaN or infinite."""
    return [
        name
        for name, value in state.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and not value.isfinite().all()
    ]


def refuse_not_finite(address: str, checkpoint: dict) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        InputError: Some are.
    """
    state = state_dict_of(checkpoint)
    names = not_finite(state)
    if names:
        raise InputError(
            f'{address}: {len(names)} of {len(state)} tensors have values '
            f'that are NaN or infinite ({", ".join(names[:3])}'
            f'{", ..." if len(names) > 3 else ""}): the training that wrote '
            'it diverged; take an earlier checkpoint.'
        )


def backbone_part(
    state: dict[str, Tensor], prefix: str | None = None
) -> dict[str, Tensor]:
    """The weights of a backbone, under its own names.

    Args:
        state: Weights of a backbone or of a network that has one.
        prefix: What the names of the backbone start with. None is
            `backbone.`, or nothing where no name starts so.
    """
    if prefix is None:
        inside = any(key.startswith('backbone.') for key in state)
        prefix = 'backbone.' if inside else ''
    return {
        key[len(prefix) :].removeprefix('.'): value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def _mmengine_globals() -> list:
    """The classes that mmengine stores beside tensors: its log buffers."""
    core = np._core if hasattr(np, '_core') else np.core
    array = core.multiarray
    return [
        HistoryBuffer,
        # A log buffer names its statistics by getattr, which could fetch
        # anything; what stands in for it fetches nothing else.
        (_statistic, 'builtins.getattr'),
        *(np.ndarray, np.dtype, array._reconstruct, array.scalar),
        *{type(np.dtype(kind)) for kind in np.sctypeDict.values()},
    ]


def _statistic(owner: type, name: str):
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr: {owner}, {name}')


def _fetch(address: str) -> Path:
    """The file behind an address; that of a URL is downloaded first."""
    scheme, found, name = address.partition('://')
    if not found:
        file = Path(address).expanduser()
        if not file.is_file():
            raise InputError(f'{address}: no such checkpoint.')
        return file
    if scheme in ('http', 'https'):
        return _download(address, address)
    if scheme in ('torchvision', 'modelzoo'):
        models = mmengine.load(TORCHVISION)
        if name not in models:
            models = get_torchvision_models()
    elif scheme in ('open-mmlab', 'openmmlab'):
        name = get_deprecated_model_names().get(name, name)
        models = get_external_models()
    else:
        raise InputError(
            f'{address}: {scheme}:// cannot be read safely; download the '
            'file and give its path.'
        )
    if name not in models:
        raise InputError(f'{address}: {scheme}:// has no model {name!r}.')
    if '://' in models[name]:
        return _download(address, models[name])
    return _fetch(f'{_get_mmengine_home()}/{models[name]}')


def _download(address: str, url: str) -> Path:
    """The file of a URL in torch's cache, as torch.hub names it."""
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    file = folder / Path(urlparse(url).path).name
    failure = None
    # The first process, then those of machines that do not see its file. All
    # meet at each barrier, also after a failure.
    for my_turn in (get_rank() == 0, True):
        try:
            if my_turn and not file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(file))
        except OSError as error:
            failure = error
        barrier()
    if failure and not file.exists():
        raise InputError(
            f'{address} cannot be downloaded '
            f'({getattr(failure, "reason", failure)}). Fetch {url} elsewhere '
            'and give its path; that of a backbone is --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE.'
        )
    return file
