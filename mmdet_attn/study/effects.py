r"""What attention modules do to their maps: measure it, and replace it.

A gate multiplies by the factor $F = 1 + \alpha (g - 1)$, where $\alpha$ is 1
without the identity start. Over the images $i$, channels $c$ and positions
$p$, $E[(F - 1)^2]$ is the sum of five parts, all of them zero or more:

$$
\begin{aligned}
\text{gain} &= (\bar F - 1)^2 &
\text{channel} &= \mathrm{Var}_c(\bar F_c) \\
\text{position} &= \mathrm{Var}_p(\bar F_p) &
\text{rest} &= \mathrm{Var}_{cp}(\bar F_{cp})
- \text{channel} - \text{position} \\
\text{image} &= E_{cp}[\mathrm{Var}_i(F_{cp})]
\end{aligned}
$$

$\bar F_{cp}$ is the mean over images, $\bar F_c$ and $\bar F_p$ are its means
over positions and channels. `image` is all that depends on the image.

As maps differ in size, positions are those of a grid over the map: as many
cells as the first map has positions, at most 64 in height and in width. What
is finer than a cell counts as `image`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_attn.plugins import Attention, Gate, PSAConv2d, SKConv2d
from mmdet_attn.weights.plugins import plugins_of

GRID = 64
SHARES = ('gain', 'channel', 'position', 'image', 'rest')
LOW, HIGH = 0.05, 0.95  # a sigmoid beyond these is saturated


def _cells(count: int, size: int) -> Tensor:
    """(count, size): the weight of each of `size` pixels in each cell."""
    pixels = torch.arange(size + 1, dtype=torch.double) / size
    cells = torch.arange(count + 1, dtype=torch.double) / count
    ends = torch.minimum(cells[1:, None], pixels[None, 1:])
    starts = torch.maximum(cells[:-1, None], pixels[None, :-1])
    return (ends - starts).clamp(min=0) * count


def resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Bring maps `(..., H, W)` to a size by the mean over areas.

    The mean of each map stays the same.
    """
    for dim, count in ((-2, height), (-1, width)):
        if maps.shape[dim] != count:
            weights = _cells(count, maps.shape[dim]).to(maps)
            maps = (maps.transpose(dim, -1) @ weights.T).transpose(dim, -1)
    return maps


class Gauge:
    """Sums of g - 1 over images. Their size does not grow with the images.

    Args:
        scale: What g would be at most if it is a sigmoid.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.count = 0
        self.sum = torch.zeros(())
        self.square = self.saturated = 0.0
        self.low, self.high = float('inf'), float('-inf')

    def add(self, g: Tensor) -> None:
        """Add the maps `(N, C, H, W)` of a batch."""
        if not g.numel():  # there may be no region of interest
            return
        if not self.count:
            size = [min(GRID, length) for length in g.shape[2:]]
            self.sum = g.new_zeros(g.shape[1], *size, dtype=torch.double)
        deviation = g.double() - 1
        self.sum += resize(deviation, *self.sum.shape[1:]).sum(0)
        self.square += deviation.square().mean((1, 2, 3)).sum().item()
        beyond = (g < LOW * self.scale) | (g > HIGH * self.scale)
        self.saturated += beyond.double().mean((1, 2, 3)).sum().item()
        self.low = min(self.low, g.min().item())
        self.high = max(self.high, g.max().item())
        self.count += len(g)

    @property
    def saturation(self) -> float | None:
        """The share of g near its ends. None if g is no sigmoid."""
        sigmoid = self.low >= 0 and self.high <= self.scale
        return self.saturated / self.count if sigmoid else None

    @property
    def mean(self) -> Tensor:
        """The mean of g over images: (C, h, w) on the grid."""
        return 1 + self.sum / self.count

    def parts(self, alpha: float) -> dict[str, float]:
        """The parts of E[(F - 1)²]."""
        mean = self.sum / self.count
        parts = {
            'gain': mean.mean().square(),
            'channel': mean.mean((1, 2)).var(correction=0),
            'position': mean.mean(0).var(correction=0),
        }
        fixed = mean.square().mean()
        parts['image'] = self.square / self.count - fixed
        parts['rest'] = fixed - sum(parts[k] for k in SHARES[:3])
        # Rounding can make a zero negative.
        return {k: alpha**2 * max(0, float(parts[k])) for k in SHARES}


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
