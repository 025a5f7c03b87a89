"""SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural
Networks.

ICML 2021, https://proceedings.mlr.press/v139/yang21o.html (not on arXiv)
"""

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision
from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SimAM(Gate):
    r"""Simple attention without a parameter.

    .. math:: y = x \cdot \sigma\left(\frac{(x - \mu)^2}
        {4(\hat\sigma^2 + \lambda)} + \frac{1}{2}\right)

    :math:`\mu` and :math:`\hat\sigma^2` are each channel's mean over H and W
    and its variance, divided by H W - 1. Input, output and gate are
    ``(N, C, H, W)``.

    Args:
        in_channels: C.
        lambda_: :math:`\lambda`; 1e-4 in the paper. The authors' ImageNet and
            COCO runs have 0.1.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` or ``lambda_`` is not positive.

    Follows the authors' code (ZjjConan/SimAM); a map of one pixel, which
    gives NaN there, has variance zero here. The authors' networks have it
    between the 3x3 convolution and its batch norm: see :class:`SimAMConv2d`.
    """

    _abbr_ = 'simam'

    def __init__(
        self,
        in_channels: int,
        lambda_: float = 1e-4,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self._check(lambda_ > 0, 'lambda_', 'positive', lambda_)
        self.lambda_ = lambda_
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        wide = full_precision(x)
        size = x.shape[2] * x.shape[3]
        square = (wide - mean(wide, 2, 3, keep=True)).square()
        # On a CPU torch.var takes ten times as long.
        variance = square.sum((2, 3), True) / max(size - 1, 1)
        scale = (4 * (variance + self.lambda_)).reciprocal()
        energy = torch.addcmul(square.new_full((), 0.5), square, scale)
        return energy.sigmoid_().to(x.dtype)


@MODELS.register_module()
class SimAMConv2d(nn.Conv2d):
    """A convolution with :class:`SimAM` behind it, for a host's ``dcn``.

    ``dcn=dict(type='mmdet_attn.SimAMConv2d', lambda_=0.1)`` makes it the 3x3
    convolution of the chosen stages, as in the authors' networks. The keys are
    those of a plain convolution, so plain weights fit.

    Args:
        args: As of ``torch.nn.Conv2d``, ``(N, C, H, W)`` in and out.
        lambda_: As of :class:`SimAM`.
        identity_init: As of :class:`SimAM`.
        kwargs: As of ``torch.nn.Conv2d``.

    Raises:
        ValueError: ``lambda_`` is not positive.
    """

    def __init__(
        self,
        *args: Any,
        lambda_: float = 1e-4,
        identity_init: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.simam = SimAM(self.out_channels, lambda_, identity_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.simam(super().forward(x))
