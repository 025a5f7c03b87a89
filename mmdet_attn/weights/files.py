"""Checkpoints are written whole or not at all, and over none by accident."""

import hashlib
import os
from pathlib import Path

import torch

from mmdet_attn.errors import InputError


def check_output(output: str, force: bool, source: str = '') -> None:
    """Refuse a place to write to before any work is done.

    Args:
        output: The file to write.
        force: Whether it may exist.
        source: The file that is read, which is never overwritten.

    Raises:
        InputError: The folder is missing, or the file is there or is the
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


def write_checkpoint(
    content: dict, output: str | Path, name_by_hash: bool = False
) -> Path:
    """Write a checkpoint in one step.

    Args:
        content: What ``torch.save`` takes.
        output: The file.
        name_by_hash: Put the first 8 digits of the file's SHA-256 behind its
            name, as published weights have them.

    Returns:
        The file that was written.
    """
    path = Path(output)
    # In the same folder, so that replacing is one step.
    part = Path(f'{path}.{os.getpid()}.part')
    try:
        torch.save(content, part)
        if name_by_hash:
            path = path.with_name(f'{path.stem}-{sha256(part)[:8]}.pth')
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
