"""identity + x * factor in one pass, with the memory of identity + x."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HOOKS = (
    '_forward_hooks',
    '_forward_pre_hooks',
    '_backward_hooks',
    '_backward_pre_hooks',
)


class Source(NamedTuple):
    """What a map is made from: it equals `again(*kept)`.

    Attributes:
        again: Makes the map, elementwise.
        kept: What the backward pass of the network keeps anyway.
        version: That of the map, which an operation in place changes.
    """

    again: Callable[..., Tensor]
    kept: tuple[Tensor | None, ...]
    version: int


def splits(module: nn.Module) -> bool:
    """Whether the product of `module.split(x)` is what `module(x)` returns.

    It is not where a subclass has a `forward` of its own but no `split`, or
    where somebody replaced the `forward` of this module or hooked into it.
    """
    for kind in type(module).__mro__:
        if 'split' in vars(kind):
            return _untouched(module)
        if 'forward' in vars(kind):
            break
    return False


def _untouched(module: nn.Module) -> bool:
    own = vars(module)
    return 'forward' not in own and not any(own[hooks] for hooks in HOOKS)


def remember_norm(y: Tensor, norm: nn.Module, x: Tensor) -> None:
    """Take note that y is the batch norm of x, if the norm does not learn."""
    kinds = nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward
    if (
        isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm))
        and type(norm).forward in kinds
        and _untouched(norm)
        and not norm.training
        and norm.running_mean is not None
        and y.requires_grad
    ):
        kept = (x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        _remember(y, partial(F.batch_norm, eps=norm.eps), *kept)


def _remember(y: Any, again: Callable, *kept: Tensor | None) -> None:
    y.source = Source(again, kept, y._version)


def _source(x: Tensor, factor: Tensor) -> Source | None:
    """What x is made from, if that is worth a second computation.

    A factor as large as x keeps maps of its own, and most of them x too.
    """
    source = getattr(x, 'source', None)
    good = source is not None and source.version == x._version
    return source if good and factor.numel() < x.numel() else None


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """x * factor."""
    source = _source(x, factor)
    if source is None:
        return x * factor
    y = _Scale.apply(source.again, None, x, factor, *source.kept)

    def again(factor: Tensor, *kept: Tensor | None) -> Tensor:
        return source.again(*kept).mul_(factor)

    _remember(y, again, factor, *source.kept)
    return y


def add_scaled(identity: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """identity + x * factor; where no gradient is wanted, in the place of x.

    At a factor of one it equals the sum bit for bit.
    """
    factor = factor.to(x.dtype)
    if identity.dtype != x.dtype:
        return identity + x * factor
    if torch.is_grad_enabled() and (
        identity.requires_grad or x.requires_grad or factor.requires_grad
    ):
        source = _source(x, factor) or Source(_same, (x,), 0)
        return _Scale.apply(source.again, identity, x, factor, *source.kept)
    places = {t.untyped_storage()._cdata for t in (x, factor)}
    return torch.addcmul(
        identity, x, factor, out=x if len(places) == 2 else None
    )


def _same(x: Tensor) -> Tensor:
    return x


class _Scale(torch.autograd.Function):
    """identity + x * factor, or x * factor. x is made again, not kept.

    In a second derivative x is a function of what it is made from.
    """

    @staticmethod
    def forward(
        again: Callable[..., Tensor],
        identity: Tensor | None,
        x: Tensor,
        factor: Tensor,
        *kept: Tensor | None,
    ) -> Tensor:
        if identity is None:
            return x * factor
        return torch.addcmul(identity, x, factor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.again, _, _, *kept = inputs
        ctx.save_for_backward(*kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        factor, *kept = ctx.saved_tensors
        _, for_identity, for_x, for_factor, *_ = ctx.needs_input_grad
        to_identity = grad if for_identity else None
        to_x = grad * factor if for_x else None
        to_factor = None
        if for_factor:
            to_factor = _products(grad, ctx.again(*kept), factor.shape)
        return None, to_identity, to_x, to_factor, *(None for _ in kept)


def _products(grad: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
    """grad * x, summed to a shape that broadcasts to theirs."""
    planes = x.is_contiguous() and grad.is_contiguous()
    if planes and shape == (*x.shape[:2], 1, 1):
        # A product of matrices writes no map of products.
        sums = torch.einsum('ncp,ncp->nc', grad.flatten(2), x.flatten(2))
        return sums[:, :, None, None]
    return (grad * x).sum_to_size(shape)
