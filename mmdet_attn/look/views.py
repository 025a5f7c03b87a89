"""Run a detector on images and order the factors of its gates by gate."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.look.gates import (
    Change,
    GateMap,
    record_changes,
    record_gates,
    summarise,
)
from mmdet_attn.look.heat_maps import Geometry
from mmdet_attn.plugins import Gate, PSAConv2d, SKConv2d
from mmdet_attn.weights.plugins import plugins_of

REPLACES = 'takes the place of a convolution'
NOT_RUN = 'did not run'
REGIONS = 'sees proposals, not the whole image'
SECOND_STAGE = 'roi_head.'
LITTLE = 0.05  # a factor closer to 1 changes little: no scale is narrower
CONSTANT = 0.02  # a factor with a smaller standard deviation hardly varies


class Look(NamedTuple):
    """One image.

    Attributes:
        path: The image.
        geometry: Its sizes.
        maps: The factors of each gate, by its name.
        changes: What each module without a factor does, by its name.
    """

    path: str
    geometry: Geometry
    maps: dict[str, list[GateMap]]
    changes: dict[str, list[Change]]


@dataclass
class GateView:
    """One gate over all images.

    Attributes:
        name: Path of the gate in the network. A gate that runs several
            times in an image has a view for each run, such as `neck.se-run2`.
        kind: Class of the gate.
        alpha: The alpha of its identity start, if it has one.
        stride: Pixels of the network's input for one position of x.
        maps: Its factor in each image.
    """

    name: str
    kind: str
    alpha: float | None
    stride: int
    maps: list[GateMap] = field(repr=False)

    @property
    def low(self) -> float:
        """The least factor over all images."""
        return min(one.low for one in self.maps)

    @property
    def mean(self) -> float:
        """The mean factor over all images."""
        return float(np.mean([one.mean for one in self.maps]))

    @property
    def high(self) -> float:
        """The greatest factor over all images."""
        return max(one.high for one in self.maps)

    @property
    def gate(self) -> tuple[float, float] | None:
        """The range of g. None without an alpha, and where alpha is 0."""
        if not self.alpha:
            return None
        low, high = sorted(
            1 + (factor - 1) / self.alpha for factor in (self.low, self.high)
        )
        return low, high

    @property
    def full(self) -> bool:
        """Whether each channel and each position have an own factor."""
        channels, *size = self.maps[0].shape
        return channels > 1 and max(size) > 1

    @property
    def weights(self) -> np.ndarray | None:
        """(images, C), the factors of channels. None for one channel."""
        rows = [m.channels for m in self.maps if m.channels is not None]
        return np.stack(rows) if len(rows) == len(self.maps) else None

    @property
    def parts(self) -> dict[str, float]:
        """The mean of (f - 1)² over images, channels and positions, in parts.

        The parts are what one constant for the gate does, what differs
        between channels in the mean over images, between images in the mean
        over positions, and between the positions of an image.
        """
        weights = self.weights
        if weights is None:
            weights = np.array([[one.mean] for one in self.maps])
        weights = weights.astype(float)
        channels = weights.mean(0)
        return {
            'constant': float((channels.mean() - 1) ** 2),
            'channels': float(channels.var()),
            'positions': float(np.mean([one.variance for one in self.maps])),
            'images': float(weights.var(0).mean()),
        }

    @property
    def deviations(self) -> dict[str, float]:
        """The standard deviations of the parts beside the constant."""
        parts = list(self.parts.items())[1:]
        return {name: part**0.5 for name, part in parts}


@dataclass
class ChangeView:
    """One module without a factor, over all images and all its runs."""

    name: str
    kind: str
    changes: list[Change] = field(repr=False)

    @property
    def sizes(self) -> list[float]:
        """|y - x| / |x| of each run."""
        return [one.size for one in self.changes]

    @property
    def parts(self) -> dict[str, float]:
        """The mean of (y - x)² in parts.

        The parts are one constant for each channel, what differs between the
        images, and what differs between the positions of an image.
        """
        channels = np.stack([one.channels for one in self.changes])
        channels = channels.astype(float)
        return {
            'constant': float((channels.mean(0) ** 2).mean()),
            'positions': float(np.mean([c.variance for c in self.changes])),
            'images': float(channels.var(0).mean()),
        }


def shares_of(
    views: Sequence[GateView] | Sequence[ChangeView],
) -> dict[str, float] | None:
    """The parts of all views, which add up to 1. None if all are 0."""
    parts = [view.parts for view in views]
    sums = {name: sum(one[name] for one in parts) for name in parts[0]}
    total = sum(sums.values())
    return {k: v / total for k, v in sums.items()} if total else None


class Summary(NamedTuple):
    """All gates of a page.

    Attributes:
        low: The least factor.
        high: The greatest factor.
        limit: The distance from 1 that all colours and axes show.
        shares: The part of all gates' mean square deviation from 1 that is
            one constant for each gate, and that is between channels, between
            positions and between images. None if all factors are 1.
        deviation: The greatest standard deviation of a gate's factor.
        gate: The name of the gate that has it.
    """

    low: float
    high: float
    limit: float
    shares: dict[str, float] | None
    deviation: float
    gate: str

    @property
    def little(self) -> bool:
        """Whether all factors are close to 1."""
        return self.limit <= LITTLE

    @property
    def constant(self) -> bool:
        """Whether each gate hardly varies."""
        return self.deviation <= CONSTANT

    @property
    def axis(self) -> tuple[float, float]:
        """The ends of the common axis."""
        low = min(self.low, 1 - LITTLE)
        high = max(self.high, 1 + LITTLE)
        spare = 0.04 * (high - low)
        return low - spare, high + spare


def summary_of(views: Sequence[GateView]) -> Summary | None:
    """What all gates do together. None without gates."""
    if not views:
        return None
    low, high = min(v.low for v in views), max(v.high for v in views)
    deviation, gate = max(
        (
            sum(view.deviations[k] ** 2 for k in view.deviations) ** 0.5,
            view.name,
        )
        for view in views
    )
    limit = max(1 - low, high - 1, LITTLE)
    return Summary(low, high, limit, shares_of(views), deviation, gate)


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
    """Detect in one image and keep what the attention does.

    Args:
        inferencer: An inferencer of MMDetection.
        path: The image.
        planes: Whether to keep the maps over positions, too.

    Returns:
        What it does, and the data sample with the detections.
    """
    network = inferencer.model
    with (
        record_gates(network, summarise) as maps,
        record_changes(_without_gates(network)) as changes,
    ):
        ((_, data),) = inferencer.preprocess([path])
        (sample,) = inferencer.forward(data)
    if not planes:
        maps = {
            name: [run._replace(plane=None) for run in runs]
            for name, runs in maps.items()
        }
    return Look(path, Geometry.of(sample.metainfo), maps, changes), sample


def _without_gates(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that have no factor. Most of them add to their input."""
    return {
        name: plugin
        for name, plugin in attention_of(network).items()
        if not name.startswith(SECOND_STAGE)
        and not isinstance(plugin, (PSAConv2d, SKConv2d))
        and not any(isinstance(module, Gate) for module in plugin.modules())
    }


def change_views(
    network: nn.Module, looks: Sequence[Look]
) -> list[ChangeView]:
    """The modules without a factor, in the order in which they ran."""
    kinds = attention_of(network)
    return [
        ChangeView(
            name,
            type(kinds[name]).__name__,
            [run for look in looks for run in look.changes[name]],
        )
        for name in looks[0].changes
    ]


def gate_views(
    network: nn.Module, looks: Sequence[Look]
) -> tuple[list[GateView], dict[str, str]]:
    """Order the factors by gate, in the order in which the gates ran.

    Returns:
        The gates; and for each attention module of which nothing can be
            shown, by its name, the reason.
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
    shown = (*first, *looks[0].changes)
    for name, plugin in attention_of(network).items():
        if not any(f'{one}.'.startswith(f'{name}.') for one in shown):
            replaces = isinstance(plugin, (PSAConv2d, SKConv2d))
            second = name.startswith(SECOND_STAGE)
            without[name] = (
                REGIONS if second else REPLACES if replaces else NOT_RUN
            )
    return views, without


def _sees_image(name: str, looks: Sequence[Look]) -> bool:
    """Whether x is the whole image, and not its many proposals."""
    counts = {len(look.maps.get(name, ())) for look in looks}
    batches = {run.batch for look in looks for run in look.maps.get(name, ())}
    first_stage = not name.startswith(SECOND_STAGE)
    return len(counts) == 1 and batches == {1} and first_stage
