"""Converters of official checkpoints to the names of this package."""

from mmdet_attn.weights.converters import (
    ecanet,
    ecanet_coco,
    mobilenet,
    resnets,
    timm,
)
from mmdet_attn.weights.converters.source import Source

SOURCES: dict[str, Source] = {
    source.name: source
    for module in (ecanet, ecanet_coco, mobilenet, resnets, timm)
    for source in vars(module).values()
    if isinstance(source, Source)
}
SOURCES = dict(sorted(SOURCES.items()))
