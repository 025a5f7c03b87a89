"""Write checkpoints in one step and over no file by accident."""

import hashlib
import io
import os
from contextlib import suppress
from importlib.metadata import packages_distributions, version
from pathlib import Path
from tempfile import TemporaryFile

import torch

import mmdet_attn
from mmdet_attn.errors import InputError


def check_target(output: str, force: bool, source: str = '') -> None:
    """Refuse a place to write to before any work is done.

    Args:
        output: The file to write.
        force: Whether it may exist.
        source: The file that is read, which is never overwritten.

    Raises:
        InputError: The folder is missing, or the file exists or is the
            source itself.
    """
    path = Path(output)
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f'{path}: must be a file in a folder that exists.')
    if not path.exists():
        return
    if not force:
        raise InputError(f'{path} exists: --force overwrites it.')
    if source and Path(source).exists() and path.samefile(source):
        raise InputError(f'{path} is INPUT: give another name.')


def sha256(path: str | Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file in one step: it is complete, or as it was before.

    Raises:
        InputError: It cannot be written.
    """
    # In the same folder, so that replacing is one step.
    part = Path(f'{path}.{os.getpid()}.part')
    try:
        with open(part, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(part.parent)
    except OSError as error:
        raise InputError(
            f'{path} cannot be written ({error.strerror}); what was there '
            'before is kept.'
        ) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def check_folder(folder: str | Path) -> None:
    """Make a folder, and refuse one that cannot be written.

    Raises:
        InputError: Nothing can be written there.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except OSError as error:
        raise InputError(
            f'{folder}: no file can be written there ({error.strerror}).'
        ) from None


def remove_parts(folder: str | Path) -> None:
    """Remove what killed processes left of `write_bytes`."""
    for part in Path(folder).glob('*.[0-9]*.part'):
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a loss of power."""
    if not hasattr(os, 'O_DIRECTORY'):  # Windows
        return
    descriptor = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_checkpoint(
    content: dict, output: str | Path, name_by_hash: bool = False
) -> Path:
    """Write a checkpoint in one step.

    Args:
        content: What `torch.save` takes.
        output: The file.
        name_by_hash: Put the first 8 digits of the file's SHA-256 behind its
            name, as published weights have them.

    Returns:
        The file that was written.
    """
    path = Path(output)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    if name_by_hash:
        digits = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
        path = path.with_name(f'{path.stem}-{digits}.pth')
    write_bytes(path, buffer.getbuffer())
    return path


def versions() -> dict[str, str]:
    """The versions of this package, of torch and of the installed stack."""
    names = packages_distributions()
    stack = {
        package: f'{names[package][0]} {version(names[package][0])}'
        for package in ('mmengine', 'mmcv', 'mmdet')
        if package in names
    }
    torch_version = str(torch.__version__)  # of a class of torch's
    own = {'mmdet_attn': mmdet_attn.__version__, 'torch': torch_version}
    return own | stack


def for_publication(checkpoint: dict) -> dict:
    """The weights, config, class names and versions of a checkpoint.

    Optimizer, schedulers and log are left out. What remains are tensors,
    strings and numbers, so anybody can load it safely.

    Raises:
        InputError: The checkpoint was not written by a training.
    """
    meta = checkpoint.get('meta', {})
    if 'state_dict' not in checkpoint or 'cfg' not in meta:
        raise InputError(
            'no checkpoint that a training wrote: it must have state_dict and '
            f'meta with cfg, and has {", ".join(map(str, checkpoint))}.'
        )
    kept = {key: meta[key] for key in ('cfg', 'epoch', 'iter') if key in meta}
    dataset = meta.get('dataset_meta') or {}
    kept['dataset_meta'] = {
        key: dataset[key] for key in ('classes', 'palette') if key in dataset
    }
    kept['versions'] = versions()
    weights = {
        key: value.detach().cpu().clone()
        for key, value in checkpoint['state_dict'].items()
    }
    return {'state_dict': weights, 'meta': kept}
