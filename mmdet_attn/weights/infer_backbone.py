"""Find out from tensors which ResNet they belong to."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from mmdet_attn.errors import InputError

State = Mapping[str, Tensor]
# What a tensor tells of an argument of a plugin.
READ: dict[str, Callable[[Tensor], int]] = {
    'att_dim': len,
    'dct_size': lambda value: value.shape[-1],
    'groups': lambda value: value.shape[1],
    'kernel_size': lambda value: value.shape[-1],
    # Of a layer from C to h channels.
    'reduction': lambda value: value.shape[1] // value.shape[0],
}
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
        name = f'network of {", ".join(map(str, self.blocks))} blocks'
        if self.depth:
            name = f'ResNet-{self.depth}'
        return name + (' with a deep stem' if self.deep_stem else '')


def kind_of(state: State) -> Kind | None:
    """The kind of ResNet, None where it is no ResNet.

    Args:
        state: Weights of a backbone or of a network that has one.
    """
    places = {
        place.groups()
        for key in state
        if (place := re.search(r'\blayer(\d+)\.(\d+)\.conv\d', key))
    }
    if not places:
        return None

    def has(pattern: str) -> bool:
        return any(re.match(rf'(backbone\.)?{pattern}', key) for key in state)

    count = Counter(int(stage) for stage, _ in places)
    return Kind(
        tuple(count[stage] for stage in sorted(count)),
        bottleneck=has(r'layer1\.0\.conv3\.'),
        deep_stem=has(r'(stem|conv1)\.0\.weight$'),
    )


def depth_of(state: State, bottleneck: bool = False) -> int:
    """The depth of a ResNet.

    Args:
        state: Weights of a backbone or of a network that has one.
        bottleneck: Whether it must be a ResNet-50 or a deeper one.

    Raises:
        InputError: Its blocks are those of no such ResNet.
    """
    kind = kind_of(state)
    if not kind or not kind.depth:
        raise InputError(
            f'a {kind or "network without blocks"}, which is none of '
            f'ResNet-{", -".join(map(str, DEPTHS.values()))}: the file is '
            'incomplete, or another network.'
        )
    if bottleneck and not kind.bottleneck:
        raise InputError(
            f'a {kind}; MMDetection has this network as ResNet-50 and deeper '
            'only.'
        )
    return kind.depth


def resnet_with(
    plugin: str,
    fixed: Mapping[str, Any] = MappingProxyType({}),
    position: str | None = None,
    blocks: tuple[int, ...] | None = None,
    stages: Collection[int] = (1, 2, 3, 4),
    strides: tuple[int, ...] | None = None,
    **arguments: str,
) -> Callable[[State], dict[str, Any]]:
    """A function from weights to the config of a ResNet with a plugin.

    Whether the weights fit that config is not looked at here.

    Args:
        plugin: The type of the plugin.
        fixed: Arguments of the plugin.
        position: Where it sits. None is behind the last norm of a block,
            before the addition.
        blocks: The blocks of a stage that have it; None is all.
        stages: The stages that must have it. Others may.
        strides: Those of the stages, where they are not the usual ones.
        arguments: Arguments of the plugin that are in `READ`, each with the
            name of the tensor that tells it. The name is that in a block, a
            regular expression in which a dot is a dot.
    """
    # In a block of a stage, or behind the stage.
    place = r'(.*\.)?(layer|bam)(?P<stage>\d)(\.\d+)?\.'

    def backbone_cfg(state: State) -> dict[str, Any]:
        depth = depth_of(state)
        found: list[dict[str, Any]] = [{}, {}, {}, {}]
        for argument, name in arguments.items():
            pattern = re.compile(place + name.replace('.', r'\.'))
            for key, value in state.items():
                if not (match := pattern.fullmatch(key)):
                    continue
                cfg, new = (
                    found[int(match['stage']) - 1],
                    READ[argument](value),
                )
                if cfg.setdefault(argument, new) != new:
                    raise InputError(
                        f'{name} says {cfg[argument]}, {new} in stage '
                        f'{match["stage"]}: a plugin takes one value in a '
                        'stage.'
                    )
            if not any(found):
                raise InputError(
                    f'no {name}: the file is incomplete, or another network.'
                )
        last = 'after_conv3' if depth >= 50 else 'after_conv2'
        plugins: list[dict[str, Any]] = []
        for cfg in found:
            where = tuple(
                other == cfg and bool(cfg or stage in stages)
                for stage, other in enumerate(found, 1)
            )
            entry: dict[str, Any] = dict(
                cfg=dict(type=plugin, **fixed, **cfg),
                position=position or last,
            )
            if not all(where):
                entry['stages'] = where
            if blocks:
                entry['blocks'] = blocks
            if any(where) and entry not in plugins:
                plugins.append(entry)
        # MMDetection's own ResNet takes plugins from ResNet-50 on, inside
        # blocks, in all blocks of a stage.
        stock = depth >= 50 and position != 'after_block' and not blocks
        return dict(
            type='mmdet.ResNet' if stock else 'mmdet_attn.AttentionResNet',
            depth=depth,
            plugins=plugins,
            **(dict(strides=strides) if strides else {}),
        )

    return backbone_cfg


def resnet_with_conv2(state: State, **conv2: Any) -> dict[str, Any]:
    """The config of a ResNet whose blocks have another second convolution."""
    return dict(
        type='mmdet.ResNet',
        depth=depth_of(state, bottleneck=True),
        dcn=conv2,
        stage_with_dcn=(True, True, True, True),
    )
