r"""What the factor of a gate consists of, over many images.

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

import torch
from torch import Tensor

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

    def merge(self, other: 'Gauge') -> None:
        """Add what another one has measured."""
        if not other.count:
            return
        if not self.count:
            self.sum = torch.zeros_like(other.sum)
        self.sum += resize(other.sum, *self.sum.shape[1:])
        self.square += other.square
        self.saturated += other.saturated
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.count += other.count

    @property
    def saturation(self) -> float | None:
        """The share of g near its ends. None if g is no sigmoid."""
        sigmoid = self.low >= 0 and self.high <= self.scale
        return self.saturated / self.count if sigmoid else None

    @property
    def mean(self) -> Tensor:
        """The mean of g over images: (C, h, w) on the grid."""
        return 1 + self.sum / self.count

    def parts(self, alpha: float = 1.0) -> dict[str, float]:
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
