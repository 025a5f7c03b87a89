"""What kind of ResNet a set of keys belongs to."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
# Names of Detectron's and Caffe's own files.
CAFFE = re.compile(r'(res\d|conv1_w|conv1\.bias|stem\.conv1\.|bn_conv1)')


class Kind(NamedTuple):
    """A ResNet, as far as its keys tell."""

    blocks: tuple[int, ...]
    bottleneck: bool
    deep_stem: bool

    def __str__(self) -> str:
        depth = DEPTHS.get((self.bottleneck, self.blocks))
        blocks = ', '.join(map(str, self.blocks))
        name = f'ResNet-{depth}' if depth else f'network of {blocks} blocks'
        return name + (' with a deep stem' if self.deep_stem else '')


def is_caffe(state: Mapping[str, Tensor]) -> bool:
    """Whether names are those of a caffe-style network's own file."""
    return any(CAFFE.match(key) for key in state)


def kind_of(state: Mapping[str, Tensor]) -> Kind | None:
    """The kind, or None where it is no ResNet."""
    places = [re.match(r'layer(\d+)\.(\d+)\.conv\d', key) for key in state]
    counts: dict[int, int] = {}
    for place in filter(None, places):
        stage, block = int(place[1]), int(place[2])
        counts[stage] = max(counts.get(stage, 0), block + 1)
    if not counts:
        return None
    return Kind(
        blocks=tuple(counts[stage] for stage in sorted(counts)),
        bottleneck='layer1.0.conv3.weight' in state,
        deep_stem='stem.0.weight' in state or 'conv1.0.weight' in state,
    )
