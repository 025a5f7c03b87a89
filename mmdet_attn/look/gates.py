"""Record what the attention modules of a network do while it runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Gate

Keep = Callable[[Tensor, Tensor], Any]


class GateMap(NamedTuple):
    """One map f, reduced to what can be drawn.

    f is the factor of a gate, or what another module adds.

    Attributes:
        channels: (C,), the mean over positions. None if f has one channel
            and many positions.
        plane: (h, w), the mean over channels. None if f has one position.
        shape: Shape of f without the batch.
        size: Height and width of x.
        low: The least value of f.
        mean: The mean value of f.
        high: The greatest value of f.
        batch: The number of maps in x. It is one for a whole image.
    """

    channels: np.ndarray | None
    plane: np.ndarray | None
    shape: tuple[int, ...]
    size: tuple[int, int]
    low: float
    mean: float
    high: float
    batch: int


def summarise(x: Tensor, f: Tensor) -> GateMap:
    """Reduce f of the first map in x. Its shape decides, not its module."""
    # f need only broadcast to x.
    f = f.detach()[(None,) * (x.dim() - f.dim())].float()
    wide = f.shape[2] * f.shape[3] > 1
    channels = plane = None
    low = mean = high = float('nan')
    if f.numel():  # there may be no region of interest
        first = f[0]
        low, mean, high = (
            value.item() for value in (first.min(), first.mean(), first.max())
        )
        if len(first) > 1 or not wide:
            channels = first.mean((1, 2)).cpu().numpy()
        if wide:
            plane = first.mean(0).cpu().numpy()
    shape, size = tuple(f.shape[1:]), (x.shape[2], x.shape[3])
    return GateMap(channels, plane, shape, size, low, mean, high, len(x))


def _copy(x: Tensor, f: Tensor) -> Tensor:
    return f.detach().clone()


@contextmanager
def record_gates(
    network: nn.Module, keep: Keep = _copy
) -> Iterator[dict[str, list]]:
    """Keep every factor f(x) of the gates that run inside this context.

    The results of the network do not change. The factor is computed for the
    record, and again by the gate itself.

    Args:
        network: A network in eval mode.
        keep: Makes of x and f(x) what is kept. The default is a copy of
            f(x).

    Yields:
        For each gate that ran, by its name and in the order of the first
            run, what was kept of each run. A gate is missing if another
            module calls its `gate` and never the gate itself.

    Raises:
        InputError: A gate is in train mode. A second computation would
            change the statistics of its norm layers.
    """
    found: dict[str, list] = {}
    recording = False

    def record(name: str, gate: Gate, x: Tensor) -> None:
        nonlocal recording
        if recording:  # a gate within a gate
            return
        recording = True
        try:
            with torch.no_grad():
                found.setdefault(name, []).append(keep(x, gate.factor(x)))
        finally:
            recording = False

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if not isinstance(module, Gate):
                continue
            if module.training:
                raise InputError(
                    f'{name or type(module).__name__} is in train mode: call '
                    'eval() on the network before its gates are recorded.'
                )
            hook = module.register_forward_pre_hook(
                lambda gate, inputs, name=name: record(name, gate, inputs[0])
            )
            stack.callback(hook.remove)
        yield found


@contextmanager
def record_additions(
    modules: Mapping[str, nn.Module], keep: Keep = _copy
) -> Iterator[dict[str, list]]:
    """Keep (y - x) / rms(x) of every run of some modules inside this context.

    Yields:
        For each module that ran, by its name, what was kept of each run.
    """
    found: dict[str, list] = {}

    def record(name: str, x: Tensor, y: Tensor) -> None:
        x, y = x.detach().float(), y.detach().float()
        added = (y - x) / x.square().mean().sqrt()
        found.setdefault(name, []).append(keep(x, added))

    with ExitStack() as stack:
        for name, module in modules.items():
            hook = module.register_forward_hook(
                lambda _, inputs, y, name=name: record(name, inputs[0], y)
            )
            stack.callback(hook.remove)
        yield found
