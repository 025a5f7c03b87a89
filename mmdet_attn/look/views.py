"""Run a detector on images and order the factors of its gates by gate."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.look.gates import (
    GateMap,
    record_additions,
    record_gates,
    summarise,
)
from mmdet_attn.look.gauge import SHARES, Gauge
from mmdet_attn.look.heat_maps import Geometry
from mmdet_attn.plugins import Gate, PSAConv2d, SKConv2d
from mmdet_attn.weights.plugins import plugins_of

REPLACES = 'takes the place of a convolution'
NOT_RUN = 'did not run'
REGIONS = 'sees proposals, not the whole image'
SECOND_STAGE = 'roi_head.'
LITTLE = 0.05  # a factor closer to 1 changes little: no scale is narrower
# Of Gauge's shares those that are no constant, in words.
PARTS = {
    'channel': 'fixed differences between channels',
    'position': 'fixed differences between positions',
    'rest': 'a fixed pattern of channels and positions',
    'image': 'what depends on the image',
}
CONSTANT = 0.02  # a factor with a smaller standard deviation hardly varies

# By the name of a module and the number of its run in an image.
Gauges = defaultdict[tuple[str, int], Gauge]


class Look(NamedTuple):
    """One image: its path, its sizes, and the maps of each module."""

    path: str
    geometry: Geometry
    maps: dict[str, list[GateMap]]


@dataclass
class GateView:
    """One gate, or another module that adds, over all images.

    Attributes:
        name: Path of the gate in the network. A gate that runs several
            times in an image has a view for each run, such as `neck.se-run2`.
        kind: Class of the gate.
        alpha: The alpha of its identity start, if it has one.
        stride: Pixels of the network's input for one position of x.
        maps: Its factor in each image; or, if it is no gate, what it adds,
            in units of the root mean square of x.
        gauge: Sums of the factor over all images; without a factor, of what
            it adds, and 1.
        identity: What leaves x as it is: 1, or 0 if it is no gate.
    """

    name: str
    kind: str
    alpha: float | None
    stride: int
    maps: list[GateMap] = field(repr=False)
    gauge: Gauge = field(repr=False)
    identity: int = 1

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
        """The range of g. None without an alpha, and where it is too small."""
        if self.alpha is None or abs(self.alpha) < 1e-3:
            return None
        low, high = sorted(
            1 + (factor - 1) / self.alpha for factor in (self.low, self.high)
        )
        return low, high

    @property
    def full(self) -> bool:
        """Whether each channel and each position has a factor of its own."""
        channels, *size = self.maps[0].shape
        return channels > 1 and max(size) > 1

    @property
    def weights(self) -> np.ndarray | None:
        """(images, C), the factors of channels. None for one channel."""
        rows = [m.channels for m in self.maps if m.channels is not None]
        return np.stack(rows) if len(rows) == len(self.maps) else None

    @property
    def parts(self) -> dict[str, float]:
        """The mean square of what it changes, in parts; see `Gauge`."""
        return self.gauge.parts()

    @property
    def change(self) -> float:
        """The root mean square of what it changes."""
        return sum(self.parts.values()) ** 0.5

    @property
    def deviation(self) -> float:
        """The standard deviation over channels, positions and images."""
        return sum(self.parts[name] for name in PARTS) ** 0.5


class Summary(NamedTuple):
    """All gates of a page.

    Attributes:
        low: The least factor.
        high: The greatest factor.
        limit: The distance from 1 that all colours show.
        axis: The ends of all axes.
        varies: The gate with the greatest standard deviation.
    """

    low: float
    high: float
    limit: float
    axis: tuple[float, float]
    varies: GateView


def summary_of(gates: Sequence[GateView]) -> Summary | None:
    """What all gates do together. None without gates."""
    if not gates:
        return None
    low, high = min(v.low for v in gates), max(v.high for v in gates)
    varies = max(gates, key=lambda view: view.deviation)
    ends = min(low, 1 - LITTLE), max(high, 1 + LITTLE)
    spare = 0.04 * (ends[1] - ends[0])
    limit = max(1 - low, high - 1, LITTLE)
    axis = ends[0] - spare, ends[1] + spare
    return Summary(low, high, limit, axis, varies)


def shares_of(views: Sequence[GateView]) -> dict[str, float]:
    """The parts of all views together as shares. Empty if all are zero."""
    total = sum(sum(view.parts.values()) for view in views)
    return {
        name: sum(view.parts[name] for view in views) / total
        for name in SHARES
        if total
    }


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
    inferencer: Any, path: str, gauges: Gauges, planes: bool = True
) -> tuple[Look, Any]:
    """Detect in one image and keep what the attention does.

    Args:
        inferencer: An inferencer of MMDetection.
        path: The image.
        gauges: Sums over images, to which this image is added.
        planes: Whether to keep the maps over positions, too.

    Returns:
        What it does, and the data sample with the detections.
    """
    network = inferencer.model
    with (
        record_gates(network, partial(_measure, 1)) as found,
        record_additions(
            _without_gates(network), partial(_measure, 0)
        ) as more,
    ):
        ((_, data),) = inferencer.preprocess([path])
        (sample,) = inferencer.forward(data)
    maps: dict[str, list[GateMap]] = {}
    for name, runs in (found | more).items():
        for run, (summary, gauge) in enumerate(runs):
            gauges[name, run].merge(gauge)
            kept = summary if planes else summary._replace(plane=None)
            maps.setdefault(name, []).append(kept)
    return Look(path, Geometry.of(sample.metainfo), maps), sample


def _measure(identity: int, x: Tensor, f: Tensor) -> tuple[GateMap, Gauge]:
    gauge = Gauge()
    four = f.detach()[(None,) * (x.dim() - f.dim())]
    gauge.add(four[:1] + (1 - identity))
    return summarise(x, f), gauge


def _without_gates(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that have no factor. Most of them add to their input."""
    return {
        name: plugin
        for name, plugin in attention_of(network).items()
        if not isinstance(plugin, (PSAConv2d, SKConv2d))
        and not any(isinstance(module, Gate) for module in plugin.modules())
    }


def gate_views(
    network: nn.Module, looks: Sequence[Look], gauges: Gauges
) -> tuple[list[GateView], dict[str, str]]:
    """Order the maps by module: gates first, each in the order they ran.

    Returns:
        The modules; and for each attention module of which nothing can be
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
        gate = isinstance(module, Gate)
        alpha = (
            module.alpha.item() if gate and module.alpha is not None else None
        )
        for run in range(len(runs)):
            maps = [look.maps[name][run] for look in looks]
            stride = looks[0].geometry.padded[0] / maps[0].size[0]
            view = name if len(runs) == 1 else f'{name}-run{run + 1}'
            kind = type(module).__name__
            gauge, stride = gauges[name, run], round(stride)
            views.append(
                GateView(view, kind, alpha, stride, maps, gauge, int(gate))
            )
    for name, plugin in attention_of(network).items():
        if not any(f'{one}.'.startswith(f'{name}.') for one in first):
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
