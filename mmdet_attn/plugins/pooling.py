"""Means and maxima over dimensions, with gradients that cost little.

Their values are those of ``Tensor.mean`` and ``Tensor.amax``. The gradient of
``mean`` is written out to the size of the map before it is added to others;
that of a sum stays a view. The gradient of ``amax`` looks for the maxima
again, in four passes over the map; where one is to come, it pays to note
their positions (and of several equal ones to take one, as max pooling does).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def mean(x: Tensor, *dims: int, keep: bool = False) -> Tensor:
    """The mean over one or more dimensions."""
    # In float16 a sum could overflow.
    if not x.requires_grad or x.dtype == torch.float16:
        return x.mean(dims, keep)
    count = 1
    for dim in dims:
        count *= x.shape[dim]
    return x.sum(dims, keep) / count


def maximum(x: Tensor, dim: int, keep: bool = False) -> Tensor:
    """The maximum over one dimension."""
    return x.max(dim, keep)[0] if x.requires_grad else x.amax(dim, keep)


def global_maximum(x: Tensor) -> Tensor:
    """The maximum over H and W of ``(N, C, H, W)``: ``(N, C)``."""
    if x.requires_grad:
        return F.adaptive_max_pool2d(x, 1).flatten(1)
    return x.amax((2, 3))
