"""Random numbers of plugins, apart from those of their hosts.

With one seed a host starts with the same weights whichever plugins are in it,
and what is drawn after its initialisation is the same. So trainings with and
without attention can be compared seed by seed.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import update_init_info
from torch import nn


@contextmanager
def own_random(*names: object) -> Iterator[None]:
    """Draw other random numbers than the rest of the program.

    They depend on the generator's state and on the names. Afterwards the
    state is that of before.

    Args:
        names: What they are for. Other names give other numbers.
    """
    cuda = torch.cuda.is_initialized()
    with torch.random.fork_rng([torch.cuda.current_device()] if cuda else []):
        drawn = int(torch.randint(2**62, (), device='cpu'))
        seed = drawn ^ zlib.crc32(repr(names).encode())
        # torch.manual_seed would also seed a GPU that is used later.
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


def init_apart(
    host: nn.Module, init: Callable[[], None], plugins: Mapping[str, Any]
) -> None:
    """Initialise a host, then each of its plugins that loaded no weights.

    The host would otherwise initialise the layers inside of plugins as its
    own. It does not see the plugins, unless it may load their weights.

    Args:
        host: The network.
        init: Initialises it.
        plugins: Its plugins by their names in it.
    """
    if getattr(host, 'is_init', False):
        init()
        return
    loaded: set[nn.Module] = set()

    def note(plugin: Any, state: Mapping, prefix: str, *_: Any) -> None:
        if any(key.startswith(prefix) for key in state):
            loaded.add(plugin)

    hooks = [
        plugin.register_load_state_dict_pre_hook(note)
        for plugin in plugins.values()
    ]
    hidden = []
    for name, plugin in plugins.items():
        if _may_load(host, name):
            plugin.is_init = True  # mmengine then leaves its start to us
        else:
            path, _, leaf = name.rpartition('.')
            hidden.append((host.get_submodule(path), leaf, plugin))
    try:
        for holder, leaf, _ in hidden:
            setattr(holder, leaf, None)
        init()
    finally:
        for holder, leaf, plugin in hidden:
            setattr(holder, leaf, plugin)
        for hook in hooks:
            hook.remove()
    for name, plugin in plugins.items():
        if plugin in loaded or not hasattr(plugin, 'init_weights'):
            continue
        with own_random(name):
            plugin.is_init = False
            plugin.init_weights()
        if hasattr(plugin, '_params_init_info'):  # for mmengine's own log
            origin = f'{type(plugin).__name__}.init_weights'
            update_init_info(plugin, f'Initialized by {origin}')


def _may_load(host: nn.Module, name: str) -> bool:
    """Whether a module around a plugin loads weights when it starts."""
    parts = name.split('.')
    for count in range(len(parts)):
        module: Any = host.get_submodule('.'.join(parts[:count]))
        cfg = getattr(module, 'init_cfg', None) or ()
        cfgs = [cfg] if isinstance(cfg, Mapping) else cfg
        if any('Pretrained' in str(one.get('type')) for one in cfgs):
            return True
        if isinstance(getattr(module, 'pretrained', None), str):
            return True
    return False
