"""What of a training's checkpoint is published."""

from importlib.metadata import PackageNotFoundError, version

import torch

import mmdet_attn
from mmdet_attn.errors import InputError

PACKAGES = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
}


def versions() -> dict[str, str]:
    """Of this package, torch and whichever stack is installed."""
    found = {'mmdet_attn': mmdet_attn.__version__, 'torch': torch.__version__}
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                found[name] = f'{distribution} {version(distribution)}'
                break
            except PackageNotFoundError:
                continue
    return {name: str(value) for name, value in found.items()}


def publish(checkpoint: dict) -> dict:
    """Weights, config, class names and versions, and nothing else.

    Without optimizer, schedulers and log: plain tensors, strings and numbers,
    so that anybody can load it safely.

    Raises:
        InputError: It is no checkpoint of a training.
    """
    meta = checkpoint.get('meta', {})
    if 'state_dict' not in checkpoint or 'cfg' not in meta:
        raise InputError(
            'no checkpoint that a training wrote: it must have state_dict and '
            f'meta with cfg, and has {", ".join(map(str, checkpoint))}.'
        )
    kept = {key: meta[key] for key in ('cfg', 'epoch', 'iter') if key in meta}
    dataset = meta.get('dataset_meta') or {}
    weights = {
        key: value.detach().cpu().clone()
        for key, value in checkpoint['state_dict'].items()
    }
    return {
        'state_dict': weights,
        'meta': kept
        | {
            'dataset_meta': {
                key: dataset[key]
                for key in ('classes', 'palette')
                if key in dataset
            },
            'versions': versions(),
        },
    }
