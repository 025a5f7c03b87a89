"""Means, and differences to a baseline with 95 % intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Difference(NamedTuple):
    """A difference to the baseline.

    Attributes:
        mean: The mean over pairs.
        low: Lower end of the interval. None without one.
        high: Upper end of the interval. None without one.
        seeds: The number of pairs.
        images: The images that were resampled. None for an interval over
            seeds.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int
    images: int | None = None

    @property
    def method(self) -> str:
        if self.low is None:
            return 'one seed, no interval'
        if self.images is None:
            return f't interval over {self.seeds} seeds, paired by seed'
        return f'one seed, bootstrap over {self.images} images'

    @property
    def verdict(self) -> str:
        """What the numbers say, in a sentence."""
        if self.low is None or self.high is None:
            return f'{self.mean:+.1f}: {self.method}'
        low, high = sorted((abs(self.low), abs(self.high)))
        text = f'by {abs(self.mean):.1f} ({low:.1f} to {high:.1f})'
        text = f'{"better" if self.mean > 0 else "worse"} {text}'
        if self.low <= 0 <= self.high:
            text = f'no difference seen: {self.low:+.1f} to {self.high:+.1f}'
        return text if self.images is None else f'{self.method}: {text}'


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds. One value has no deviation."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {'mean': float(np.mean(values)), 'sd': sd, 'seeds': len(values)}


def over_seeds(values: Sequence[float], base: Sequence[float]) -> Difference:
    r"""The difference of pairs of the same seed, with a t interval.

    $\bar d \pm t_{0.975, n - 1} s_d / \sqrt n$ for the $n$ differences $d$.
    One pair has no interval.
    """
    from scipy.stats import t

    each, count = np.subtract(values, base), len(values)
    mean = float(each.mean())
    if count < 2:
        return Difference(mean, None, None, count)
    error = float(each.std(ddof=1)) / count**0.5
    half = float(t.isf((1 - LEVEL) / 2, count - 1)) * error
    return Difference(mean, mean - half, mean + half, count)
