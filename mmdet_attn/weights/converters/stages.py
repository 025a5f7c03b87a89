"""What the tensors of a ResNet say about its depth and its plugins."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError

State = Mapping[str, Tensor]

# By whether blocks have two convolutions, and by the blocks of each stage.
DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (True, (2, 2, 2, 2)): 18,
    (True, (3, 4, 6, 3)): 34,
    (False, (3, 4, 6, 3)): 50,
    (False, (3, 4, 23, 3)): 101,
    (False, (3, 8, 36, 3)): 152,
}


def block_counts(state: State) -> tuple[int, ...]:
    """The blocks in each stage."""
    matches = (re.search(r'\blayer(\d)\.(\d+)\.', key) for key in state)
    pairs = {(int(m[1]), int(m[2])) for m in matches if m}
    last = max((stage for stage, _ in pairs), default=0)
    return tuple(
        sum(stage == number for stage, _ in pairs)
        for number in range(1, last + 1)
    )


def depth_of(source: str, state: State) -> int:
    """The depth of a ResNet.

    Raises:
        InputError: Its blocks are those of no ResNet.
    """
    counts = block_counts(state)
    basic = not any(re.search(r'\blayer1\.0\.conv3\.', key) for key in state)
    if (basic, counts) not in DEPTHS:
        known = '; '.join(
            f'{", ".join(map(str, blocks))} ({depth})'
            for (kind, blocks), depth in DEPTHS.items()
            if kind == basic
        )
        raise InputError(
            f'{source}: blocks of {2 if basic else 3} convolutions in stages '
            f'of {", ".join(map(str, counts)) or "none"}, where a ResNet has '
            f'{known}: the file is incomplete, or another network.'
        )
    return DEPTHS[basic, counts]


def last_position(depth: int) -> str:
    """Behind the last norm of a block, before the addition."""
    return 'after_conv2' if depth < 50 else 'after_conv3'


def stage_values(
    source: str,
    state: State,
    suffix: str,
    read: Callable[[Tensor], Any],
    every: bool = True,
) -> list[Any]:
    """What one tensor of the plugin says in each of the four stages.

    Args:
        source: Name of the source, for messages.
        state: Tensors under their official names.
        suffix: The tensor's name in its block, a regular expression.
        read: What it says; None stands for a stage without the tensor.
        every: Whether each stage must have it; otherwise one at least.

    Raises:
        InputError: The tensor is missing, or differs inside a stage.
    """
    found = defaultdict(set)
    shown = suffix.replace('\\', '')
    for key, value in state.items():
        match = re.fullmatch(rf'(?:.*\.)?layer(\d)\.\d+\.{suffix}', key)
        if match:
            found[int(match[1])].add(read(value))
    for stage in range(1, 5):
        if len(found[stage]) > 1:
            several = ', '.join(map(str, sorted(found[stage])))
            raise InputError(
                f'{source}: {shown} says {several} in stage {stage}: a '
                'plugin takes one value in a stage.'
            )
    values = [next(iter(found[stage]), None) for stage in range(1, 5)]
    missing = [n for n, value in enumerate(values, 1) if value is None]
    if missing and (every or len(missing) == 4):
        raise InputError(
            f'{source}: no {shown} in stage '
            f'{", ".join(map(str, missing))}: the file is incomplete, or '
            'another network.'
        )
    return values


def plugins_by_stage(
    values: Sequence[Any], cfg: Callable[[Any], dict], position: str
) -> list[dict]:
    """One entry of ``plugins`` for each value; None is no plugin."""
    distinct = list(dict.fromkeys(v for v in values if v is not None))
    plugins = []
    for value in distinct:
        plugin = dict(cfg=cfg(value), position=position)
        if set(values) != {value}:
            plugin['stages'] = tuple(v == value for v in values)
        plugins.append(plugin)
    return plugins


def require(source: str, state: State, key: str) -> Tensor:
    """A tensor without which the others cannot be understood."""
    if key not in state:
        raise InputError(
            f'{source}: no {key}: the file is incomplete, or another network.'
        )
    return state[key]
