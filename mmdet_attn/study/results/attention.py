"""The attention in a config: modules, places, kernel sizes."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmdet_attn.insertion import wraps
from mmdet_attn.plugins import ECA

# Kernel sizes and the start of plugins are facts of their own.
APART = ('type', 'kernel_size', 'identity_init')


class Module(NamedTuple):
    """One entry of a config.

    Attributes:
        cfg: Type and arguments.
        place: Such as `'after_conv3'`.
        stages: The stages of the backbone, from 1. Empty if it has none.
        blocks: The blocks of a stage. None is all.
    """

    cfg: Mapping[str, Any]
    place: str
    stages: tuple[int, ...] = ()
    blocks: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        return short(self.cfg['type'])


def short(kind: Any) -> str:
    """A type without the scope in front."""
    return str(kind).split('.')[-1]


def entries(part: Any) -> list[Mapping]:
    """One or several entries of a config, as a list."""
    return [part] if isinstance(part, Mapping) else list(part or ())


def modules(model: Mapping[str, Any]) -> list[Module]:
    """Every attention module of a detector's config."""
    return list(_modules(model))


def _modules(model: Mapping) -> Iterator[Module]:
    backbone = model.get('backbone') or {}
    for plugin in backbone.get('plugins') or ():
        every = () if 'at' in plugin else (True,) * 4
        chosen = plugin.get('stages') or every
        blocks = plugin.get('blocks')
        yield Module(
            plugin['cfg'],
            plugin.get('position') or _where(plugin),
            tuple(i for i, here in enumerate(chosen, 1) if here),
            blocks and tuple(blocks),
        )
    if backbone.get('dcn'):
        yield Module(backbone['dcn'], 'for 3x3 convolutions')
    for neck in entries(model.get('neck')):
        if short(neck['type']) == 'AttentionNeck':
            yield Module(neck['plugin'], 'in the neck')
        for plugin in neck.get('plugins') or ():
            yield Module(plugin['cfg'], f'{_where(plugin)} of the neck')


def _where(plugin: Mapping) -> str:
    """The place of a plugin of `mmdet_attn.insert`."""
    names = [plugin['at']] if isinstance(plugin['at'], str) else plugin['at']
    return f'{plugin.get("place", "after")} {", ".join(names)}'


def unwrap(part: Any) -> Any:
    """A config in which no part is `insert`: the host has its plugins."""
    if isinstance(part, (list, tuple)):
        return [unwrap(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    part = {key: unwrap(value) for key, value in part.items()}
    if not wraps(part):
        return part
    host = part['host']
    return {**host, 'plugins': [*host.get('plugins', ()), *part['plugins']]}


def describe(model: Mapping[str, Any]) -> str:
    """All modules in words. `'none'` if there are none."""
    found: dict[tuple, set[int]] = {}
    for module in modules(model):
        arguments = [
            f'{key}={value}'
            for key, value in sorted(module.cfg.items())
            if key not in APART
        ]
        key = (module.name, module.place, module.blocks, tuple(arguments))
        found.setdefault(key, set()).update(module.stages)
    lines = []
    for (name, place, blocks, arguments), stages in found.items():
        line = f'{name}({", ".join(arguments)}) {place}'.replace('() ', ' ')
        if stages:
            line += f' in stages {", ".join(map(str, sorted(stages)))}'
        if blocks:
            line += f', blocks {", ".join(map(str, blocks))}'
        lines.append(line)
    return '; '.join(lines) or 'none'


def kernel_sizes(model: Mapping[str, Any]) -> str:
    """Kernel sizes of ECA, by stage. `'none'` without ECA.

    If a config has no kernel size, the paper's formula decides.
    """
    backbone = model.get('backbone') or {}
    sizes: dict[int, set[str]] = {}
    for module in modules(model):
        if module.name == 'ECA':
            for stage in module.stages or (1,):
                size = module.cfg.get('kernel_size') or _adaptive(
                    module, backbone, stage
                )
                sizes.setdefault(stage, set()).add(str(size))
    last = max(sizes, default=0)
    by_stage = [sizes.get(stage, {'-'}) for stage in range(1, last + 1)]
    return ', '.join('/'.join(sorted(s)) for s in by_stage) or 'none'


def _adaptive(module: Module, backbone: Mapping, stage: int) -> int | str:
    if 'depth' not in backbone or not module.stages:
        return 'adaptive'
    channels = backbone.get('base_channels', 64) * 2 ** (stage - 1)
    wide = module.place in ('after_conv3', 'after_block')
    if backbone['depth'] >= 50 and wide:
        channels *= 4
    gamma, b = module.cfg.get('gamma', 2), module.cfg.get('b', 1)
    return ECA.adaptive_kernel_size(channels, gamma, b)
