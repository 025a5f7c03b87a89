"""What each module of a network takes and returns."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmdet_attn.errors import InputError
from mmdet_attn.module_names import nearest

# Not square, so that a map (N, H, W, C) is told from one (N, C, H, W).
HEIGHT, WIDTH = 128, 192
Size = tuple[int, int, int]


class Seen(NamedTuple):
    """C, H, W of the map before and after a module, or what is no map."""

    before: Size | str
    after: Size | str


class Trace(NamedTuple):
    """What ran on which zeros, in the order in which it first ended."""

    inputs: Any
    seen: dict[str, Seen]
    failure: Exception | None


def trace(network: nn.Module, given: Any = None) -> Trace:
    """Run a network once on zeros, and note the first run of each module.

    Tokens `(N, L, C)` count as a map where the module gets their `hw_shape`.
    The state of the network does not change. Where it does not run, `failure`
    says why, and what ran before is there.

    Args:
        network: The network.
        given: What it takes, instead of zeros.
    """
    runs = []
    for inputs in examples(network) if given is None else [given]:
        runs.append(_run(network, inputs))
        if runs[-1].failure is None:
            return runs[-1]
    return max(runs, key=lambda run: len(run.seen))


def examples(network: nn.Module) -> Iterator[Any]:
    """Zeros that a backbone, a neck or a head may take, the likely first.

    A neck lists its `in_channels` or has a convolution for each level. A head
    has one number for all levels. All else takes an image.
    """
    like = next(network.parameters(), torch.zeros(()))

    def maps(channels: Iterable[int]) -> tuple[Tensor, ...]:
        return tuple(
            like.new_zeros(1, count, HEIGHT >> level, WIDTH >> level)
            for level, count in enumerate(channels, 1)
        )

    channels: Any = getattr(network, 'in_channels', None)
    if isinstance(channels, (list, tuple)):
        yield maps(channels)
        return
    first = _first_channels(network)
    if first == channels:
        levels = getattr(network, 'prior_generator', None)
        yield maps([channels] * getattr(levels, 'num_levels', 1))
    # A stem may rearrange the three colours before its first convolution.
    for colours in dict.fromkeys((first, 3)):
        yield like.new_zeros(1, colours, HEIGHT, WIDTH)
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield maps(map(_first_channels, child))
            return


def _first_channels(network: nn.Module) -> int:
    convs = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return next((conv.in_channels for conv in convs), 3)


def _run(network: nn.Module, inputs: Any) -> Trace:
    seen: dict[str, Seen] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, args: tuple, kwargs: dict, output: Any) -> None:
            hw = given_hw_shape(hw_position(module), args, kwargs)
            first = args[0] if args else None
            sizes = Seen(_size(first, hw), _size(output, hw))
            seen[name] = _both(seen.get(name, sizes), sizes)

        return hook

    handles = [
        module.register_forward_hook(watch(name), with_kwargs=True)
        for name, module in network.named_modules()
    ]
    try:
        with evaluating(network), torch.no_grad():
            network(inputs)
    except Exception as error:
        return Trace(inputs, seen, error)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(inputs, seen, None)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    # train() of a host may do more than set this.
    training = {module: module.training for module in network.modules()}
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def hw_position(module: nn.Module) -> int | None:
    """Where a module takes the height and width of its tokens."""
    names = [*inspect.signature(module.forward).parameters]
    return names.index('hw_shape') if 'hw_shape' in names else None


def given_hw_shape(
    position: int | None, args: tuple, kwargs: Mapping
) -> tuple[int, int] | None:
    """The height and width of tokens that a module got."""
    if position is None:
        return None
    if 'hw_shape' in kwargs:
        return kwargs['hw_shape']
    return args[position] if position < len(args) else None


def _both(first: Seen, next_: Seen) -> Seen:
    """The first of two runs, unless they differ in the channels."""
    return Seen(
        *(
            one if one[0] == two[0] else 'maps of several C'
            for one, two in zip(first, next_, strict=True)
        )
    )


def _size(x: Any, hw_shape: tuple[int, int] | None) -> Size | str:
    """C, H, W of a map, or words that say what it is."""
    if not isinstance(x, Tensor):
        return f'a {type(x).__name__}'
    shape = tuple(x.shape)
    if len(shape) == 3 and hw_shape is not None:
        height, width = hw_shape
        if shape[1] == height * width:
            return shape[2], height, width
    if len(shape) == 4:
        last = shape[1] * WIDTH == shape[2] * HEIGHT
        if not last or shape[2] * WIDTH == shape[3] * HEIGHT:
            return shape[1], shape[2], shape[3]
    return f'the shape {shape}'


def channels_at(host: nn.Module, spec: Mapping, at: str, run: Trace) -> int:
    """The channels for a plugin at a module.

    Args:
        host: The network.
        spec: What to insert, with `cfg` and `place`.
        at: The name of the module.
        run: The trace of the network.

    Raises:
        InputError: The module has no map there.
    """
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
        said = spec['cfg'].get('in_channels') or _said_channels(module, place)
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


def _said_channels(module: nn.Module, place: str) -> int | None:
    """The channels of a layer, where its attributes tell them."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        before = place == 'before'
        return module.in_channels if before else module.out_channels
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    return module.num_features if isinstance(module, _NormBase) else None


def check_map(path: str, plugin: Any, x: Tensor) -> None:
    """Refuse what is no map of the channels that a plugin was built for.

    Where a network did not run on zeros, nothing else has seen it.
    """
    count = getattr(plugin, 'in_channels', None)
    if x.dim() != 4 or count not in (None, x.shape[1]):
        raise InputError(
            f'insert: {path} takes a map (N, {count}, H, W), got the shape '
            f'{tuple(x.shape)}: give another in_channels or another place.'
        )
