"""Put attention into any network, by the names of its modules."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.module_names import CONTAINERS, find
from mmdet_attn.own_random import init_apart, own_random
from mmdet_attn.tracing import (
    channels_at,
    check_map,
    given_hw_shape,
    hw_position,
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
    sizes = [(*place, channels_at(network, *place, run)) for place in places]
    parents = Counter((id(spec), _parent(at)) for spec, at, _ in sizes)
    built = [
        _build(network, *size, parents[id(size[0]), _parent(size[1])] > 1)
        for size in sizes
    ]
    _check_names(built)
    # Until here the host is as it was.
    if not hasattr(network, 'insertions'):
        network.insertions = Insertions(network)
    for item, plugin in built:
        network.insertions.add(item, plugin)
    return network


def wraps(cfg: Mapping) -> bool:
    """Whether `insert` builds this config, around that in its `host`."""
    return cfg.get('type') in (insert, 'insert', 'mmdet_attn.insert')


class Insertion:
    """One plugin at one module."""

    def __init__(
        self, holder: nn.Module, path: str, at: str, place: str
    ) -> None:
        self.holder, self.path, self.at, self.place = holder, path, at, place
        self.hw_position: int | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition('.')[2]

    @property
    def plugin(self) -> Any:
        return getattr(self.holder, self.name)

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

    def add(self, item: Insertion, plugin: nn.Module) -> None:
        """Hang a plugin in."""
        module = self.host.get_submodule(item.at)
        near = [*module.parameters()] or [*item.holder.parameters()]
        if near:
            plugin.to(near[0].device)
            plugin.requires_grad_(any(p.requires_grad for p in near))
        item.holder.add_module(item.name, plugin.train(module.training))
        self.items.append(item)
        item.attach(module)

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
        init_apart(
            self.host,
            partial(type(self.host).init_weights, self.host),
            {item.path: item.plugin for item in self.items},
        )


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


def _build(
    host: nn.Module, spec: dict, at: str, channels: int, several: bool
) -> tuple[Insertion, nn.Module]:
    """A plugin, and where it will be."""
    path, _, leaf = at.rpartition('.')
    holder = host.get_submodule(path)
    if holder is host or isinstance(holder, CONTAINERS):
        path, holder, several = at, host.get_submodule(at), False
    cfg = {'in_channels': channels, **spec['cfg']}
    postfix = str(cfg.pop('postfix', ''))
    with own_random(at, spec['place'], cfg.get('type'), postfix):
        plugin = MODELS.build(cfg)
    kind = type(plugin)
    name = getattr(kind, '_abbr_', kind.__name__.lower()) + postfix
    name += f'_{leaf}' if several else ''
    return Insertion(holder, f'{path}.{name}', at, spec['place']), plugin


def _check_names(built: Sequence[tuple[Insertion, nn.Module]]) -> None:
    count = Counter(item.path for item, _ in built)
    for item, plugin in built:
        if count[item.path] > 1 or hasattr(item.holder, item.name):
            raise InputError(
                f'insert: {_parent(item.path)} already has {item.name!r}: '
                f'give the cfg of {type(plugin).__name__} at {item.at!r} a '
                'postfix.'
            )
