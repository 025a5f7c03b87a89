"""Find out from tensors which ResNet they belong to."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from mmdet_attn.errors import InputError

State = Mapping[str, Tensor]
# The name of a tensor in its block, a regular expression, and what the tensor
# tells.
Reading = tuple[str, Callable[[Tensor], Any]]

# By whether blocks have three convolutions, and by the blocks of each stage.
DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}


class Kind(NamedTuple):
    """A ResNet, as far as its keys tell."""

    blocks: tuple[int, ...]
    bottleneck: bool
    deep_stem: bool

    @property
    def depth(self) -> int | None:
        return DEPTHS.get((self.bottleneck, self.blocks))

    def __str__(self) -> str:
        blocks = ', '.join(map(str, self.blocks))
        name = (
            f'ResNet-{self.depth}'
            if self.depth
            else f'network of {blocks} blocks'
        )
        return name + (' with a deep stem' if self.deep_stem else '')


def kind_of(state: State) -> Kind | None:
    """The kind of ResNet, None where it is no ResNet.

    Args:
        state: Weights of a backbone or of a network that has one.
    """
    places = {
        (int(place[1]), int(place[2]))
        for key in state
        if (place := re.search(r'\blayer(\d+)\.(\d+)\.conv\d', key))
    }
    if not places:
        return None
    stages = sorted({stage for stage, _ in places})
    return Kind(
        tuple(sum(at == stage for at, _ in places) for stage in stages),
        _has(state, r'layer1\.0\.conv3\.'),
        _has(state, r'(stem|conv1)\.0\.weight$'),
    )


def _has(state: State, pattern: str) -> bool:
    return any(re.match(rf'(backbone\.)?{pattern}', key) for key in state)


def depth_of(state: State) -> int:
    """The depth of a ResNet.

    Raises:
        InputError: Its blocks are those of no ResNet.
    """
    kind = kind_of(state) or Kind((), False, False)
    if kind.depth:
        return kind.depth
    known = '; '.join(
        f'{", ".join(map(str, blocks))} ({depth})'
        for (bottleneck, blocks), depth in DEPTHS.items()
        if bottleneck == kind.bottleneck
    )
    raise InputError(
        f'blocks of {2 + kind.bottleneck} convolutions in stages of '
        f'{", ".join(map(str, kind.blocks)) or "none"}, where a ResNet has '
        f'{known}: the file is incomplete, or another network.'
    )


def bottleneck_depth_of(state: State) -> int:
    """The depth of a ResNet-50 or a deeper one.

    Raises:
        InputError: It is not so deep.
    """
    depth = depth_of(state)
    if depth < 50:
        raise InputError(
            f'a ResNet-{depth}; MMDetection has this network as ResNet-50 '
            'and deeper only.'
        )
    return depth


def last_dim(value: Tensor) -> int:
    """The size of a kernel or map."""
    return value.shape[-1]


def reduction(value: Tensor) -> int:
    """C / h of a layer from C to h channels."""
    return value.shape[1] // value.shape[0]


def require(state: State, key: str) -> Tensor:
    """A tensor without which the others cannot be understood."""
    if key not in state:
        raise InputError(
            f'no {key}: the file is incomplete, or another network.'
        )
    return state[key]


def stage_values(
    state: State, reading: Reading, needed: Sequence[int] = (1, 2, 3, 4)
) -> list:
    """What one tensor of a plugin tells in each of the four stages.

    Args:
        state: Tensors under their official names.
        reading: The tensor, and what it tells.
        needed: The stages that must have it, of which there is one at least.

    Returns:
        Four values, None for a stage without the tensor.

    Raises:
        InputError: The tensor is missing, or differs inside a stage.
    """
    suffix, read = reading
    shown = suffix.replace('\\', '')
    values: list[Any] = [None] * 4
    for key, value in state.items():
        place = re.fullmatch(rf'(?:.*\.)?layer(\d)\.\d+\.{suffix}', key)
        if not place:
            continue
        stage, new = int(place[1]) - 1, read(value)
        if values[stage] not in (None, new):
            raise InputError(
                f'{shown} says {values[stage]}, {new} in stage {stage + 1}: '
                'a plugin takes one value in a stage.'
            )
        values[stage] = new
    if not any(values):
        needed = needed or (1, 2, 3, 4)
    missing = [str(stage) for stage in needed if values[stage - 1] is None]
    if missing:
        raise InputError(
            f'no {shown} in stage {", ".join(missing)}: the file is '
            'incomplete, or another network.'
        )
    return values


def resnet_with(
    plugin: str,
    arguments: Mapping[str, Reading],
    position: str | None = None,
    blocks: tuple[int, ...] | None = None,
    needed: Sequence[int] = (1, 2, 3, 4),
    **backbone: Any,
) -> Callable[[State], dict[str, Any]]:
    """A function from weights to the config of a ResNet with a plugin.

    Args:
        plugin: The type of the plugin.
        arguments: Its arguments, each by the tensor that tells it.
        position: Where it sits. None is behind the last norm of a block,
            before the addition.
        blocks: The blocks of a stage that have it; None is all.
        needed: The stages that must have it.
        backbone: Further arguments of the backbone.
    """

    def backbone_cfg(state: State) -> dict[str, Any]:
        depth = depth_of(state)
        by_stage = list(
            zip(
                *(stage_values(state, r, needed) for r in arguments.values()),
                strict=True,
            )
        )
        plugins = []
        for values in dict.fromkeys(by_stage):
            if None in values:
                continue
            cfg = dict(zip(arguments, values, strict=True))
            last = 'after_conv3' if depth >= 50 else 'after_conv2'
            entry: dict[str, Any] = dict(
                cfg=dict(type=plugin, **cfg), position=position or last
            )
            stages = tuple(other == values for other in by_stage)
            if not all(stages):
                entry['stages'] = stages
            plugins.append(entry | (dict(blocks=blocks) if blocks else {}))
        # MMDetection's own ResNet takes plugins from ResNet-50 on, inside
        # blocks, in all blocks of a stage.
        stock = depth >= 50 and position != 'after_block' and not blocks
        return dict(
            type='mmdet.ResNet' if stock else 'mmdet_attn.AttentionResNet',
            depth=depth,
            plugins=plugins,
            **backbone,
        )

    return backbone_cfg
