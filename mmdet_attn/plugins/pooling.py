"""The mean over dimensions, with a gradient that costs little."""

import torch
from torch import Tensor


def mean(x: Tensor, *dims: int, keep: bool = False) -> Tensor:
    """The mean over one or more dimensions.

    Autograd gives the gradient of a sum as a view of one number per channel,
    where that of `Tensor.mean` is a new map as large as `x`.
    """
    # A sum does not fit into float16.
    wide = torch.promote_types(x.dtype, torch.float32)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x.mean(dims, keep, dtype=wide).to(x.dtype)
    count = 1
    for dim in dims:
        count *= x.shape[dim]
    return (x.sum(dims, keep, dtype=wide) / count).to(x.dtype)
