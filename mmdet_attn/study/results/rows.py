"""Find the row of the paper that a config trains, by its content."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmdet_attn.study.results.attention import entries, modules, short
from mmdet_attn.study.results.paper import paper_ap

DETECTORS = {
    'FasterRCNN': ('faster_rcnn', 'Faster R-CNN'),
    'MaskRCNN': ('mask_rcnn', 'Mask R-CNN'),
    'RetinaNet': ('retinanet', 'RetinaNet'),
}
# ContextBlock and NonLocal2d are the same modules in mmcv.
FAMILIES = {
    'ECA': 'eca',
    'SE': 'se',
    'GC': 'gc',
    'ContextBlock': 'gc',
    'NonLocal': 'nonlocal',
    'NonLocal2d': 'nonlocal',
}
# Settings that make another network of a backbone, with their defaults.
VARIANTS = {
    'base_channels': 64,
    'groups': 1,
    'base_width': None,
    'style': 'pytorch',
    'widen_factor': 1.0,
    'deepen_factor': 1.0,
}


class Identity(NamedTuple):
    """What a config trains.

    Attributes:
        detector: Its name in text, such as `'Faster R-CNN'`.
        backbone: Its name in text, without attention: `'ResNet-50'`.
        attention: Its name in text, such as `'ECA'`. Empty without any.
        row: The paper's row, as the name of the config that trains it. None
            if the paper has no such row.
    """

    detector: str
    backbone: str
    attention: str
    row: str | None

    @property
    def title(self) -> str:
        plus = f' + {self.attention}' if self.attention else ''
        return f'{self.detector}, {self.backbone}{plus}'


def identify(model: Mapping[str, Any]) -> Identity:
    """Name the detector, backbone and attention of a config's `model`."""
    kind = short(model['type'])
    prefix, detector = DETECTORS.get(kind, (kind, kind))
    backbone = model.get('backbone') or {}
    attention = ' + '.join(dict.fromkeys(m.name for m in modules(model)))
    row = f'{prefix}_r{backbone.get("depth")}'
    name = _backbone(backbone)
    if attention:
        row += f'_{FAMILIES.get(attention)}'
    in_paper = (
        name in ('ResNet-50', 'ResNet-101')
        and [short(n['type']) for n in entries(model.get('neck'))] == ['FPN']
        and paper_ap(row, 'bbox')
    )
    return Identity(detector, name, attention, row if in_paper else None)


def _backbone(cfg: Mapping) -> str:
    name = short(cfg.get('type', 'no backbone')).removeprefix('Attention')
    if 'depth' in cfg:
        name += f'-{cfg["depth"]}'
    variants = [
        f'{key}={cfg[key]}'
        for key, usual in VARIANTS.items()
        if cfg.get(key, usual) != usual
    ]
    return f'{name} ({", ".join(variants)})' if variants else name
