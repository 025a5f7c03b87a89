"""Attention for MMDetection 3.x, one file per paper.

Importing this registers every plugin in mmengine's root registry and needs
torch and mmengine only; what needs mmdet (the backbones, MMDetection 1.x's
arithmetic) loads when named.
"""

from importlib import import_module

from mmdet_attn.insertion import insert
from mmdet_attn.necks import AttentionNeck
from mmdet_attn.plugins import *
from mmdet_attn.plugins import __all__ as _plugins

__version__ = '0.2.0'
__all__ = [*_plugins, 'AttentionNeck', 'insert']
_LAZY = {
    'AlphaRampHook': 'mmdet_attn.study.starts',
    'AttentionPretrained': 'mmdet_attn.weights.pretrained',
    'AttentionResNet': 'mmdet_attn.backbones',
    'CheckpointHook': 'mmdet_attn.training.checkpoints',
    'EpochBasedTrainLoop': 'mmdet_attn.training.reproducible',
    'EvaluateFirstHook': 'mmdet_attn.study.starts',
    'FastCocoMetric': 'mmdet_attn.evaluation.coco_metric',
    'IterBasedTrainLoop': 'mmdet_attn.training.reproducible',
    'LegacyBoxCoder': 'mmdet_attn.mmdet1',
    'LegacyRetinaHead': 'mmdet_attn.mmdet1',
    'LegacyRoIAlign': 'mmdet_attn.mmdet1',
    'LegacyRoIExtractor': 'mmdet_attn.mmdet1',
    'LegacyRoIHead': 'mmdet_attn.mmdet1',
    'OnnxDetector': 'mmdet_attn.deployment.runtime',
    'SKNet': 'mmdet_attn.backbones',
    'ZeroStart': 'mmdet_attn.study.starts',
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'mmdet_attn.{name} needs MMDetection, and {error.name} is not '
            'installed: see docs/install.md.'
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
