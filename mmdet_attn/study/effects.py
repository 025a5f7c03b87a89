"""What attention modules do to their maps: measure it, and replace it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_attn.look.gauge import Gauge, resize
from mmdet_attn.plugins import Attention, Gate, PSAConv2d, SKConv2d
from mmdet_attn.weights.plugins import plugins_of


class Part:
    """An attention module under audit, which can do something else.

    Args:
        name: Its name in the detector.
        module: The module.
    """

    effects: tuple[str, ...] = ('removed', 'shuffled')
    replaces = 'forward'

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        self.original = getattr(module, self.replaces)
        self.ran = False
        # The maps of the last image of a batch, one for each run.
        self.before: list[Tensor] = []
        self.now: list[Tensor] = []
        self.end: list[Tensor] = []

    def use(self, effect: str) -> None:
        """Do this instead of what the module does.

        Args:
            effect: The name of a method, or `'trained'`.
        """
        for name in ('gate', 'forward'):
            vars(self.module).pop(name, None)
        if effect == 'removed':
            self.module.forward = lambda x: x
        elif effect != 'trained':
            setattr(self.module, self.replaces, getattr(self, effect))
        self.now = self.end  # the image before the first is the last

    def next_batch(self) -> None:
        """Take note that other images follow."""
        self.before, self.now = self.now, []

    def finish(self) -> None:
        """Take note that all images have been measured."""
        self.end = self.now

    def measured(self, x: Tensor) -> Tensor:
        y = self.original(x)
        self._keep(y - x)
        return y

    def shuffled(self, x: Tensor) -> Tensor:
        return x + self._of_image_before(self.original(x) - x)

    def _keep(self, maps: Tensor) -> None:
        self.ran = True
        self.now.append(maps[-1:].clone())

    def _of_image_before(self, maps: Tensor) -> Tensor:
        run = len(self.now)
        self._keep(maps)
        if run < len(self.before) and len(self.before[run]):
            first = resize(self.before[run], *maps.shape[2:])
        else:
            first = maps[-1:]
        return torch.cat([first, maps])[: len(maps)]


class GatePart(Part):
    """A gate. What replaces g replaces F, which is linear in g."""

    effects = ('map', 'scalar', 'removed', 'shuffled')
    replaces = 'gate'

    def __init__(self, name: str, module: Gate) -> None:
        super().__init__(name, module)
        # A gate may be a sigmoid divided by its value at the start.
        self.gauge = Gauge(getattr(module, 'scale', 1.0))
        alpha = module.alpha
        self.has_alpha = alpha is not None
        self.alpha = 1.0 if alpha is None else alpha.item()

    @property
    def factors(self) -> Tensor:
        """The mean of F over images: (C, h, w) on the grid."""
        return 1 + self.alpha * (self.gauge.mean - 1)

    def measured(self, x: Tensor) -> Tensor:
        g = self._maps(x)
        self.gauge.add(g)
        self._keep(g)
        return g

    def map(self, x: Tensor) -> Tensor:
        mean = self.gauge.mean
        size = [
            1 if cells == 1 else length
            for cells, length in zip(mean.shape[1:], x.shape[2:], strict=True)
        ]
        return resize(mean, *size)[None].to(x)

    def scalar(self, x: Tensor) -> Tensor:
        return self.gauge.mean.mean().to(x)

    def shuffled(self, x: Tensor) -> Tensor:
        return self._of_image_before(self._maps(x))

    def _maps(self, x: Tensor) -> Tensor:
        g = self.original(x)
        g = g[(None,) * (x.dim() - g.dim())]
        return g.expand(len(x), *g.shape[1:])


def parts_of(network: nn.Module) -> tuple[list[Part], dict[str, str]]:
    """What can be audited in a network, and why the others cannot.

    A gate within a gate belongs to the outer one. Where a module is made of
    gates, as CBAM, each of them is a part.
    """
    parts: list[Part] = []
    others: dict[str, str] = {}
    for name, plugin in plugins_of(network).items():
        gates: list[Part] = []
        for inner, module in plugin.named_modules():
            path = f'{name}.{inner}' if inner else name
            outer = any(path.startswith(f'{gate.name}.') for gate in gates)
            if isinstance(module, Gate) and not outer:
                gates.append(GatePart(path, module))
        if isinstance(plugin, (PSAConv2d, SKConv2d)):
            others[name] = 'it replaces a convolution'
        elif gates:
            parts += gates
        elif isinstance(plugin, Attention):
            parts.append(Part(name, plugin))
        else:
            others[name] = 'it is of another package'
    return parts, others


@contextmanager
def using(parts: Sequence[Part], effect: str) -> Iterator[None]:
    """Let parts do something else within this context."""
    for part in parts:
        part.use(effect)
    try:
        yield
    finally:
        for part in parts:
            part.use('trained')
