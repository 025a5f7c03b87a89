"""What the gates of a network say while it runs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Gate

Keep = Callable[[Tensor, Tensor], Any]


class Seen(NamedTuple):
    """One map g(x), reduced to what can be drawn.

    Attributes:
        channels: (C,), the mean over positions; None if g has one channel
            and many positions.
        plane: (h, w), the mean over channels; None if g has one position.
        shape: Of g, without the batch.
        size: H and W of x.
        low, mean, high: Of all of g.
        batch: How many maps x held: one, if it was a whole image.
    """

    channels: np.ndarray | None
    plane: np.ndarray | None
    shape: tuple[int, ...]
    size: tuple[int, int]
    low: float
    mean: float
    high: float
    batch: int


def summarise(x: Tensor, g: Tensor) -> Seen:
    """Reduce the map of the first image by its shape, whatever its module."""
    # g need only broadcast to x.
    g = g.detach()[(None,) * (x.dim() - g.dim())].float()
    wide = g.shape[2] * g.shape[3] > 1
    channels = plane = None
    low = mean = high = float('nan')
    if g.numel():  # regions of interest: there may be none
        low, mean, high = (
            value.item() for value in (g[0].min(), g[0].mean(), g[0].max())
        )
        if g.shape[1] > 1 or not wide:
            channels = g[0].mean((1, 2)).cpu().numpy()
        if wide:
            plane = g[0].mean(0).cpu().numpy()
    return Seen(
        channels,
        plane,
        tuple(g.shape[1:]),
        (x.shape[2], x.shape[3]),
        low,
        mean,
        high,
        len(x),
    )


def _copy(x: Tensor, g: Tensor) -> Tensor:
    return g.detach().clone()


@contextmanager
def record_gates(
    network: nn.Module, keep: Keep = _copy
) -> Iterator[dict[str, list]]:
    """Keep every map g(x) of the gates that run inside this context.

    The results of the network do not change. A gate whose ``forward`` calls
    its ``gate`` is computed once, any other a second time.

    Args:
        network: In eval mode.
        keep: Makes of x and g(x) what is kept; a copy of g(x) by default.

    Yields:
        For each gate that ran, in the order of the first run, what was kept
        of each of its runs. A gate that another module asks for its map
        alone, without running it, is not among them.

    Raises:
        InputError: A gate is in train mode, where computing it once more
            would change the statistics of its norm layers.
    """
    gates = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, Gate)
    }
    for name, gate in gates.items():
        if gate.training:
            raise InputError(
                f'{name or type(gate).__name__} is in train mode: call '
                'eval() on the network before its gates are recorded.'
            )
    found: dict[str, list] = {}
    with ExitStack() as stack:
        for name, gate in gates.items():
            stack.enter_context(_watch(name, gate, found, keep))
        yield found


@contextmanager
def _watch(
    name: str, module: Gate, found: dict[str, list], keep: Keep
) -> Iterator[None]:
    compute = module.gate
    # The instance's own: its class may be in use elsewhere.
    own = module.__dict__
    before = own.get('gate')
    fresh: list[Tensor] = []

    def gate(x: Tensor) -> Tensor:
        fresh[:] = [compute(x)]
        return fresh[0]

    def start(*_: Any) -> None:
        fresh.clear()

    def end(_: nn.Module, inputs: tuple, output: Tensor) -> None:
        with torch.no_grad():
            g = fresh[0] if fresh else compute(inputs[0])
            found.setdefault(name, []).append(keep(inputs[0], g))
        fresh.clear()

    hooks = [
        module.register_forward_pre_hook(start),
        module.register_forward_hook(end),
    ]
    own['gate'] = gate
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if before is None:
            del own['gate']
        else:
            own['gate'] = before
