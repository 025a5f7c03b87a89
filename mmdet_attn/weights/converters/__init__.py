"""Converters of official checkpoints to the names of this package.

Each is a module with ``DESCRIPTION`` (which files of whom), ``convert`` (a
state dict under official names to one under ours) and ``host`` (the config of
the model that the result fits strictly).
"""

from types import ModuleType

from mmdet_attn.weights.converters import (
    bam,
    cbam,
    coordatt,
    ecanet,
    ecanet_coco,
    epsanet,
    fcanet,
    gcnet,
    gsop,
    mmpretrain,
    simam,
    timm,
    torchvision,
    triplet,
)

SOURCES: dict[str, ModuleType] = {
    'bam': bam,
    'cbam': cbam,
    'coordatt': coordatt,
    'ecanet': ecanet,
    'ecanet-coco': ecanet_coco,
    'epsanet': epsanet,
    'fcanet': fcanet,
    'gcnet': gcnet,
    'gsop': gsop,
    'mmpretrain': mmpretrain,
    'simam': simam,
    'timm': timm,
    'torchvision': torchvision,
    'triplet': triplet,
}
