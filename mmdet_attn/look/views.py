"""Run a detector on images and order the maps of its gates by gate."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.look.gates import GateMap, record_gates, summarise
from mmdet_attn.look.heat_maps import Geometry
from mmdet_attn.weights.plugins import plugins_of

NO_GATE = 'has no g(x): it adds to its input or replaces a layer'
REGIONS = 'sees proposals, not the whole image'
SECOND_STAGE = 'roi_head.'


class Look(NamedTuple):
    """One image: its path, its sizes, and the maps of each gate."""

    path: str
    geometry: Geometry
    maps: dict[str, list[GateMap]]


@dataclass
class GateView:
    """One gate over all images.

    Attributes:
        name: Path of the gate in the network. A gate that runs several
            times in an image has a view for each run, such as `neck.se-run2`.
        kind: Class of the gate.
        alpha: The alpha of its identity start, if it has one.
        stride: Pixels of the network's input for one position of x.
        maps: Its map of each image.
    """

    name: str
    kind: str
    alpha: float | None
    stride: int
    maps: list[GateMap] = field(repr=False)

    @property
    def low(self) -> float:
        """The least g over all images."""
        return min(one.low for one in self.maps)

    @property
    def mean(self) -> float:
        """The mean g over all images."""
        return float(np.mean([one.mean for one in self.maps]))

    @property
    def high(self) -> float:
        """The greatest g over all images."""
        return max(one.high for one in self.maps)

    @property
    def factor(self) -> tuple[float, float] | None:
        """The range of 1 + alpha (g - 1). None without an alpha."""
        if self.alpha is None:
            return None
        ends = [1 + self.alpha * (g - 1) for g in (self.low, self.high)]
        return min(ends), max(ends)

    @property
    def weights(self) -> np.ndarray | None:
        """(images, C), the weights of channels. None for one channel."""
        rows = [m.channels for m in self.maps if m.channels is not None]
        return np.stack(rows) if len(rows) == len(self.maps) else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the weights over images, mean over C."""
        weights = self.weights
        if weights is None or len(weights) < 2:
            return None
        return float(weights.std(0).mean())


def stage_of(name: str) -> str:
    """`backbone.layer2` of `backbone.layer2.3.eca`, `neck` of others."""
    parts = name.split('.')
    for index, part in enumerate(parts):
        if re.fullmatch(r'[A-Za-z_]+\d+', part):
            return '.'.join(parts[: index + 1])
    return parts[0]


def by_stage(views: Sequence[GateView]) -> dict[str, list[GateView]]:
    """The gates of each stage, both in the order in which they ran."""
    stages: dict[str, list[GateView]] = {}
    for view in views:
        stages.setdefault(stage_of(view.name), []).append(view)
    return stages


def attention_of(network: nn.Module) -> dict[str, nn.Module]:
    """The attention modules of a network by name.

    Raises:
        InputError: There is none.
    """
    plugins = plugins_of(network)
    if not plugins:
        raise InputError(
            f'This {type(network).__name__} has no attention to look at: '
            'give a config with plugins, such as '
            'configs/faster_rcnn_r50_eca.py, and weights trained with it.'
        )
    return plugins


def look_at(
    inferencer: Any, path: str, planes: bool = True
) -> tuple[Look, Any]:
    """Detect in one image and keep the maps of the gates.

    Args:
        inferencer: An inferencer of MMDetection.
        path: The image.
        planes: Whether to keep the maps over positions, too.

    Returns:
        The maps, and the data sample with the detections.
    """
    with record_gates(inferencer.model, summarise) as maps:
        ((_, data),) = inferencer.preprocess([path])
        (sample,) = inferencer.forward(data)
    if not planes:
        maps = {
            name: [run._replace(plane=None) for run in runs]
            for name, runs in maps.items()
        }
    return Look(path, Geometry.of(sample.metainfo), maps), sample


def gate_views(
    network: nn.Module, looks: Sequence[Look]
) -> tuple[list[GateView], dict[str, str]]:
    """Order the maps by gate, in the order in which the gates ran.

    Returns:
        The gates; and for each attention module without a map of the image,
            by its name, the reason.
    """
    modules = dict(network.named_modules())
    views, without = [], {}
    first = looks[0].maps
    for name, runs in first.items():
        if not _sees_image(name, looks):
            without[name] = REGIONS
            continue
        module = modules[name]
        alpha = None if module.alpha is None else module.alpha.item()
        for run in range(len(runs)):
            maps = [look.maps[name][run] for look in looks]
            stride = looks[0].geometry.padded[0] / maps[0].size[0]
            view = name if len(runs) == 1 else f'{name}-run{run + 1}'
            kind = type(module).__name__
            views.append(GateView(view, kind, alpha, round(stride), maps))
    for name in attention_of(network):
        if not any(f'{gate}.'.startswith(f'{name}.') for gate in first):
            second = name.startswith(SECOND_STAGE)
            without[name] = REGIONS if second else NO_GATE
    return views, without


def _sees_image(name: str, looks: Sequence[Look]) -> bool:
    """Whether x is the whole image, and not its many proposals."""
    counts = {len(look.maps.get(name, ())) for look in looks}
    batches = {run.batch for look in looks for run in look.maps.get(name, ())}
    first_stage = not name.startswith(SECOND_STAGE)
    return len(counts) == 1 and batches == {1} and first_stage
