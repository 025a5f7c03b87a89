"""Which ResNet a set of weights belongs to, read from its tensors."""

import re
from collections import defaultdict
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


def stage_values(state: State, reading: Reading, every: bool = True) -> list:
    """What one tensor of a plugin tells in each of the four stages.

    Args:
        state: Tensors under their official names.
        reading: The tensor, and what it tells.
        every: Whether each stage must have it; otherwise one at least.

    Returns:
        Four values, None for a stage without the tensor.

    Raises:
        InputError: The tensor is missing, or differs inside a stage.
    """
    suffix, read = reading
    shown = suffix.replace('\\', '')
    found = defaultdict(set)
    for key, value in state.items():
        place = re.fullmatch(rf'(?:.*\.)?layer(\d)\.\d+\.{suffix}', key)
        if place:
            found[int(place[1])].add(read(value))
    for stage in range(1, 5):
        if len(found[stage]) > 1:
            several = ', '.join(map(str, sorted(found[stage])))
            raise InputError(
                f'{shown} says {several} in stage {stage}: a plugin takes '
                'one value in a stage.'
            )
    values = [next(iter(found[stage]), None) for stage in range(1, 5)]
    missing = [str(n) for n, value in enumerate(values, 1) if value is None]
    if missing and (every or len(missing) == 4):
        raise InputError(
            f'no {shown} in stage {", ".join(missing)}: the file is '
            'incomplete, or another network.'
        )
    return values


def plugins_by_stage(cfgs: Sequence[dict | None], position: str) -> list[dict]:
    """One entry of `plugins` for each config; None is no plugin."""
    plugins: list[dict] = []
    for cfg in cfgs:
        if cfg is None or any(plugin['cfg'] == cfg for plugin in plugins):
            continue
        plugin: dict[str, Any] = dict(cfg=cfg, position=position)
        stages = tuple(other == cfg for other in cfgs)
        if not all(stages):
            plugin['stages'] = stages
        plugins.append(plugin)
    return plugins


def resnet_with(
    plugin: str,
    arguments: Mapping[str, Reading],
    position: str | None = None,
    blocks: tuple[int, ...] | None = None,
    every: bool = True,
    **backbone: Any,
) -> Callable[[State], dict[str, Any]]:
    """What makes the config of a ResNet with a plugin from its weights.

    Args:
        plugin: The type of the plugin.
        arguments: Its arguments, each by the tensor that tells it.
        position: Where it sits. None is behind the last norm of a block,
            before the addition.
        blocks: The blocks of a stage that have it; None is all.
        every: Whether every stage must have it.
        backbone: Further arguments of the backbone.
    """

    def backbone_cfg(state: State) -> dict[str, Any]:
        depth = depth_of(state)
        values = [
            stage_values(state, reading, every)
            for reading in arguments.values()
        ]
        cfgs = [
            None
            if None in stage
            else dict(type=plugin, **dict(zip(arguments, stage, strict=True)))
            for stage in zip(*values, strict=True)
        ]
        last = 'after_conv3' if depth >= 50 else 'after_conv2'
        plugins = plugins_by_stage(cfgs, position or last)
        if blocks:
            plugins = [dict(entry, blocks=blocks) for entry in plugins]
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
