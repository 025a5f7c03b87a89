"""Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional
Networks.

MICCAI 2018, https://arxiv.org/abs/1803.02579
"""

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


class _Larger(torch.autograd.Function):
    """max(x c, x s), whose gradient takes 8 passes over the map, not 30."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, c: Tensor, s: Tensor) -> Tensor:
        return torch.maximum(x * c, x * s)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        x, c, s = ctx.saved_tensors
        # What goes to x c: the gradient where x c - x s is positive.
        grad_c = torch.ops.aten.threshold_backward(grads[0], x * (c - s), 0)
        grad_s = grads[0] - grad_c
        return (
            torch.addcmul(grad_c * c, grad_s, s),
            (grad_c * x).sum((2, 3), True),
            (grad_s * x).sum(1, True),
        )


@MODELS.register_module()
class SCSE(Gate):
    r"""Spatial and channel squeeze and excitation, side by side.

    .. math:: y = \max(x \cdot c, x \cdot s), \quad
        c = \sigma(W_2\,\mathrm{ReLU}(W_1\,\mathrm{GAP}(x))), \quad
        s = \sigma(w \star x)

    GAP is the mean over H and W, :math:`w \star` a 1x1 convolution to one
    channel. Input, output and gate are ``(N, C, H, W)``.

    Args:
        in_channels: C.
        reduction: r of the channel gate c; at least one hidden channel.
        fusion: ``'max'`` is the authors' code, ``'add'`` the first paper's
            :math:`x \cdot c + x \cdot s`.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: A size is not positive or ``fusion`` is unknown.

    Follows the authors' code (ai-med/squeeze_and_excitation).
    """

    _abbr_ = 'scse'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        fusion: str = 'max',
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        hidden = self._hidden(in_channels, reduction)
        self.fusion = self._one_of('fusion', fusion, ('max', 'add'))
        self.fc1 = nn.Linear(in_channels, hidden)
        self.fc2 = nn.Linear(hidden, in_channels)
        self.conv = nn.Conv2d(in_channels, 1, 1)
        self.init_weights()

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.fc1(mean(x, 2, 3)).relu()
        channel = self.fc2(hidden).sigmoid()[:, :, None, None]
        return channel.to(x.dtype), self.conv(x).sigmoid().to(x.dtype)

    def gate(self, x: Tensor) -> Tensor:
        channel, spatial = self._gates(x)
        if self.fusion == 'add':
            return channel + spatial
        # The larger product has the smaller gate where x is negative.
        return torch.where(
            x < 0,
            torch.minimum(channel, spatial),
            torch.maximum(channel, spatial),
        )

    def forward(self, x: Tensor) -> Tensor:
        channel, spatial = self._gates(x)
        if self.fusion == 'add':
            y = x * (channel + spatial)
        else:
            y = _Larger.apply(x, channel, spatial)
        return self._blend(x, y)
