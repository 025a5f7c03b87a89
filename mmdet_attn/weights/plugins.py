"""Find the plugins of a network and how they start."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from mmengine.hooks import Hook
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Attention, PSAConv2d, SKConv2d


def plugins_of(network: nn.Module) -> dict[str, nn.Module]:
    """The plugins by name: ours anywhere, anybody's where they are put."""
    found: dict[str, nn.Module] = {}
    names: set[str] = set()
    for path, module in network.named_modules():
        start = f'{path}.' if path else ''
        for attribute, value in vars(module).items():
            if re.fullmatch(r'after_conv\d_plugin_names', attribute):
                names.update(start + name for name in value)
        if insertions := getattr(module, 'insertions', None):
            names.update(start + item.path for item in insertions.items)
        # Our own blocks have more positions than stock ones.
        more = getattr(module, 'inserted_names', ())
        names.update(start + name for name in more)
        inside = any(path.startswith(f'{plugin}.') for plugin in found)
        ours = isinstance(module, (Attention, PSAConv2d, SKConv2d))
        if not inside and (ours or path in names):
            found[path] = module
    return found


def starts_as_identity(plugin: nn.Module) -> bool:
    """Whether it leaves a network as it is until it is trained.

    Plugins from other packages are unknown; the answer is no.
    """
    return isinstance(plugin, Attention) and plugin.starts_as_identity


def refuse_frozen(plugins: Mapping[str, nn.Module]) -> None:
    """Refuse plugins that would keep their random start for ever.

    Args:
        plugins: Those that start at random, by name.

    Raises:
        InputError: One has parameters, and none of them is trained.
    """
    frozen = [
        name
        for name, plugin in plugins.items()
        if (found := list(plugin.parameters()))
        and not any(parameter.requires_grad for parameter in found)
    ]
    if frozen:
        raise InputError(
            f'{len(frozen)} plugin(s) in a frozen stage have no weights and '
            f'would stay random for ever ({frozen[0]} first): set '
            'identity_init=True in their cfg, leave that stage out '
            '(stages=(False, ...)), train it (frozen_stages=0), or give '
            'weights that have them.'
        )


def remember_loaded(network: nn.Module) -> set[str]:
    """The names of the plugins that get weights from now on.

    Whoever initialises the network or resumes its training, a name is added
    when weights are loaded.
    """
    loaded: set[str] = set()
    for name, plugin in plugins_of(network).items():

        def remember(module, state, prefix, *_, name=name):
            if any(key.startswith(prefix) for key in state):
                loaded.add(name)

        plugin.register_load_state_dict_pre_hook(remember)
    return loaded


class FrozenPluginHook(Hook):
    """Refuse to train with a frozen plugin that no weights have reached."""

    loaded: Collection[str] = ()

    def before_run(self, runner: Any) -> None:
        self.loaded = remember_loaded(runner.model)

    def before_train(self, runner: Any) -> None:
        refuse_frozen(
            {
                name: plugin
                for name, plugin in plugins_of(runner.model).items()
                if name not in self.loaded and not starts_as_identity(plugin)
            }
        )
