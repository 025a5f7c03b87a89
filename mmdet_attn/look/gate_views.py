"""A detector looks at images; what each of its gates said, by gate."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.look.gates import Seen, record_gates, summarise
from mmdet_attn.look.heat_maps import Geometry
from mmdet_attn.weights.plugins import plugins_of

NO_GATE = 'adds to its input or replaces a layer, so has no g(x)'
SECOND_STAGE = 'roi_head.'
REGIONS = 'sees proposals, not the whole image'


class Look(NamedTuple):
    """One image: its sizes, and what each gate said of it."""

    path: str
    geometry: Geometry
    seen: dict[str, list[Seen]]


@dataclass
class GateView:
    """One gate over all images.

    Attributes:
        name: Its path in the network, and its run if it has several.
        kind: Its class.
        alpha: Of its identity start, if it has one.
        stride: Pixels of the network's input for one position of x.
        seen: What it said about each image.
    """

    name: str
    kind: str
    alpha: float | None
    stride: int
    seen: list[Seen] = field(repr=False)

    @property
    def stage(self) -> str:
        """Where it stands, see :func:`stage_of`."""
        return stage_of(self.name)

    @property
    def weights(self) -> np.ndarray | None:
        """(images, C): the weight of each channel; None for one channel."""
        rows = [
            seen.channels for seen in self.seen if seen.channels is not None
        ]
        return np.stack(rows) if len(rows) == len(self.seen) else None


def stage_of(name: str) -> str:
    """``backbone.layer2`` of ``backbone.layer2.3.eca``, ``neck`` of others."""
    parts = name.split('.')
    for index, part in enumerate(parts):
        if re.fullmatch(r'[A-Za-z_]+\d+', part):
            return '.'.join(parts[: index + 1])
    return parts[0]


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
    """Detect in one image, and keep what the gates said.

    Args:
        inferencer: Of MMDetection.
        path: The image.
        planes: Whether to keep the maps over positions, too.

    Returns:
        What was seen, and the data sample with the detections.
    """
    with record_gates(inferencer.model, summarise) as seen:
        ((_, data),) = inferencer.preprocess([path])
        (sample,) = inferencer.forward(data)
    if not planes:
        seen = {
            name: [run._replace(plane=None) for run in runs]
            for name, runs in seen.items()
        }
    return Look(path, Geometry.of(sample.metainfo), seen), sample


def gate_views(
    network: nn.Module, looks: Sequence[Look]
) -> tuple[list[GateView], dict[str, str]]:
    """Order what was seen by gate, in the order in which they ran.

    Returns:
        The gates, and for each attention module without a map of the image
        why that is so.
    """
    modules = dict(network.named_modules())
    views, without = [], {}
    first = looks[0].seen
    for name, runs in first.items():
        if not _sees_image(name, looks):
            without[name] = REGIONS
            continue
        module = modules[name]
        alpha = None if module.alpha is None else module.alpha.item()
        for run in range(len(runs)):
            seen = [look.seen[name][run] for look in looks]
            stride = looks[0].geometry.padded[0] / seen[0].size[0]
            views.append(
                GateView(
                    name if len(runs) == 1 else f'{name}-run{run + 1}',
                    type(module).__name__,
                    alpha,
                    round(stride),
                    seen,
                )
            )
    for name in attention_of(network):
        if not any(f'{gate}.'.startswith(f'{name}.') for gate in first):
            second = name.startswith(SECOND_STAGE)
            without[name] = REGIONS if second else NO_GATE
    return views, without


def _sees_image(name: str, looks: Sequence[Look]) -> bool:
    """Not the proposals of a second stage, of which an image has many."""
    counts = {len(look.seen.get(name, ())) for look in looks}
    batches = {run.batch for look in looks for run in look.seen.get(name, ())}
    first_stage = not name.startswith(SECOND_STAGE)
    return len(counts) == 1 and batches == {1} and first_stage


def by_stage(views: Sequence[GateView]) -> Mapping[str, list[GateView]]:
    """Gates of each stage, both in the order in which they ran."""
    stages: dict[str, list[GateView]] = {}
    for view in views:
        stages.setdefault(view.stage, []).append(view)
    return stages
