"""Put attention into any network, by the names of its modules."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.module_names import CONTAINERS, find, nearest
from mmdet_attn.tracing import (
    Trace,
    check_map,
    given_hw_shape,
    hw_position,
    said_channels,
    trace,
)


@MODELS.register_module()
def insert(
    host: nn.Module | Mapping, plugins: Sequence[Mapping], **more: Any
) -> nn.Module:
    """Put plugins behind or in front of modules of any network.

    ```python
    insert(network, [dict(cfg=dict(type='ECA'), at='layer*.*.bn3')])
    ```

    The host stays what it is: its class, its keys, and with
    `identity_init=True` its output. The keys of the plugins are added.

    A plugin is a child of the parent of its module, under its short name:
    `layer1.0.eca` for `layer1.0.bn3`. Where several modules of one parent
    match, their names follow: `layer1.0.eca_bn3`. Where the parent is a list
    or the host itself, the plugin is a child of the module: `conv1.eca`. So a
    host that freezes a part freezes the plugins in it.

    A match that is a plain `Sequential` means its last module, or its first
    one with `place='before'`. Tokens `(N, L, C)` become a map by the argument
    `hw_shape` of the module, as Swin and PVT pass it. A module that runs
    several times has one plugin for all its runs.

    Args:
        host: The network, or its config.
        plugins: Dictionaries with `cfg` (type and arguments of the plugin,
            perhaps `postfix`) and `at`, a pattern over whole dotted names of
            modules, or a list of them. `*`, `?` and `[...]` are those of
            `fnmatch`, so `*` matches dots too. `re:` in front makes it a
            regular expression. `place` is `'after'` (the default) or
            `'before'`. `in_channels` is found by one run on zeros. Give it in
            `cfg` where the host cannot run on zeros.
        more: More of the config of the host. MMDetection adds `train_cfg` and
            `test_cfg` to that of a head.

    Returns:
        The host.

    Raises:
        InputError: A pattern matches nothing, a match does not run or has no
            map, a name is taken, or a plugin has an unknown key.
    """
    network: Any = host
    if isinstance(host, Mapping):
        network = MODELS.build({**host, **more})
    elif more:
        raise TypeError(f'insert() got unexpected arguments: {[*more]}')
    places = [
        (spec, at)
        for spec in map(_check, plugins)
        for at in find(network, spec['at'], spec['place'])
    ]
    run = trace(network)
    sizes = [(*place, _channels(network, *place, run)) for place in places]
    if not hasattr(network, 'insertions'):
        network.insertions = Insertions(network)
    parents = Counter((id(spec), _parent(at)) for spec, at, _ in sizes)
    for spec, at, channels in sizes:
        several = parents[id(spec), _parent(at)] > 1
        network.insertions.add(at, spec, channels, several)
    return network


def wraps(cfg: Mapping) -> bool:
    """Whether a config is that of `insert`, with another in `host`."""
    return cfg.get('type') in (insert, 'insert', 'mmdet_attn.insert')


class Insertion:
    """One plugin at one module."""

    def __init__(
        self, holder: nn.Module, path: str, at: str, place: str
    ) -> None:
        self.holder, self.path, self.at, self.place = holder, path, at, place
        self.hw_position: int | None = None

    @property
    def plugin(self) -> Any:
        return getattr(self.holder, self.path.rpartition('.')[2])

    def attach(self, module: nn.Module) -> None:
        """Register the hook, unless the module has it."""
        before = self.place == 'before'
        hooks: Any = module._forward_hooks
        hooks = module._forward_pre_hooks if before else hooks
        if any(getattr(h, '__self__', None) is self for h in hooks.values()):
            return
        self.hw_position = hw_position(module)
        if before:
            module.register_forward_pre_hook(self.before, with_kwargs=True)
        else:
            module.register_forward_hook(self.after, with_kwargs=True)

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        return (self._attend(args[0], args, kwargs), *args[1:]), kwargs

    def after(
        self, module: nn.Module, args: tuple, kwargs: dict, output: Tensor
    ) -> Tensor:
        return self._attend(output, args, kwargs)

    def _attend(self, x: Tensor, args: tuple, kwargs: dict) -> Tensor:
        if self.hw_position is None or x.dim() == 4:
            check_map(self.path, self.plugin, x)
            return self.plugin(x)
        size: Any = given_hw_shape(self.hw_position, args, kwargs)
        x = self.plugin(x.transpose(1, 2).unflatten(2, size))
        return x.flatten(2).transpose(1, 2).contiguous()


class Insertions:
    """The plugins of a host, and what keeps them in it."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.items: list[Insertion] = []
        host.register_forward_pre_hook(self.attach)
        if hasattr(host, 'init_weights'):
            host.init_weights = self.init_weights

    @property
    def plugins(self) -> list[Any]:
        """The plugins in the order of their insertion."""
        return [item.plugin for item in self.items]

    def add(self, at: str, spec: dict, channels: int, several: bool) -> None:
        """Build a plugin and hang it in."""
        module = self.host.get_submodule(at)
        path = _parent(at)
        holder = self.host.get_submodule(path)
        if holder is self.host or isinstance(holder, CONTAINERS):
            path, holder, several = at, module, False
        cfg = {'in_channels': channels, **spec['cfg']}
        postfix = str(cfg.pop('postfix', ''))
        plugin = MODELS.build(cfg)
        kind = type(plugin)
        name = getattr(kind, '_abbr_', kind.__name__.lower()) + postfix
        name += '_' + at.rpartition('.')[2] if several else ''
        if hasattr(holder, name):
            raise InputError(
                f'insert: {path} already has {name!r}: give the cfg of '
                f'{kind.__name__} at {at!r} a postfix.'
            )
        near = [*module.parameters()] or [*holder.parameters()]
        if near:
            plugin.to(near[0].device)
            plugin.requires_grad_(any(p.requires_grad for p in near))
        holder.add_module(name, plugin.train(module.training))
        path = f'{path}.{name}'
        self.items.append(Insertion(holder, path, at, spec['place']))
        self.items[-1].attach(module)

    def attach(self, host: nn.Module, args: tuple) -> None:
        """Hang in again what lost its hook.

        A conversion of batch norms, or their fusion with convolutions, puts
        new modules without hooks in their places.
        """
        if not torch.compiler.is_compiling():
            for item in self.items:
                item.attach(self.host.get_submodule(item.at))

    def init_weights(self) -> None:
        """Initialise the host, then each plugin that loaded no weights.

        The host may initialise the convolutions inside of plugins as its own,
        or may not reach them at all.
        """
        loaded: set[nn.Module] = set()

        def note(plugin: Any, state: dict, prefix: str, *_: Any) -> None:
            if any(key.startswith(prefix) for key in state):
                loaded.add(plugin)

        plugins = self.plugins
        hooks = [p.register_load_state_dict_pre_hook(note) for p in plugins]
        type(self.host).init_weights(self.host)
        for plugin, hook in zip(plugins, hooks, strict=True):
            hook.remove()
            if plugin not in loaded and hasattr(plugin, 'init_weights'):
                plugin.init_weights()


def _check(plugin: Mapping) -> dict:
    if not {'cfg', 'at'} <= plugin.keys() <= {'cfg', 'at', 'place'}:
        raise InputError(
            'insert: a plugin has cfg, at and perhaps place, got '
            f'{sorted(plugin)}.'
        )
    place = plugin.get('place', 'after')
    if place not in ('after', 'before'):
        raise InputError(
            f"insert: place must be 'after' or 'before', got {place!r}."
        )
    return {**plugin, 'place': place}


def _parent(name: str) -> str:
    return name.rpartition('.')[0]


def _channels(host: nn.Module, spec: dict, at: str, run: Trace) -> int:
    place = spec['place']
    if at in run.seen:
        size = getattr(run.seen[at], place)
        if not isinstance(size, str):
            return size[0]
        what = f'{"gets" if place == "before" else "returns"} {size}'
    elif run.failure is None:
        what = 'does not run, or runs under another name'
    else:
        module = host.get_submodule(at)
        said = spec['cfg'].get('in_channels') or said_channels(module, place)
        if said:
            return said
        what = (
            f'needs in_channels in its cfg, as {type(host).__name__} does not '
            f'run on zeros ({run.failure})'
        )
    good = [n for n, m in run.seen.items() if type(getattr(m, place)) is tuple]
    raise InputError(
        f'insert: {at!r} {what}. A plugin needs a map (N, C, H, W).'
        f'{nearest(at, good)}'
    )
