"""SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural
Networks.

ICML 2021, https://proceedings.mlr.press/v139/yang21o.html (not on arXiv)
"""

from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision
from mmdet_attn.plugins.base import Gate, ShowArguments
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SimAM(Gate):
    r"""Simple attention module: x σ((x-μ)² / 4(s²+λ) + 1/2).

    $$
    y = x \cdot \sigma\left(\frac{(x - \mu)^2}{4 (s^2 + \lambda)}
    + \frac{1}{2}\right)
    $$

    $\mu$ and $s^2$ are the mean of each channel over height and width and its
    variance, divided by $HW - 1$. There is no parameter. Input, output and
    gate are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        lambda_: $\lambda$; 1e-4 in the paper, 0.1 in the authors' trainings
            on ImageNet and COCO.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` or `lambda_` is not positive.

    Placement:
        The authors put it between the 3x3 convolution and its batch norm, in
        every block. A plugin cannot stand there: see `SimAMConv2d`.

    Evidence:
        The authors trained detectors, but their figures were not collected.
        Not measured here.

    Source:
        Follows the authors' code (ZjjConan/SimAM). A map of one pixel gives
        NaN there; its variance is zero here.
    """

    _abbr_ = 'simam'

    def __init__(
        self,
        in_channels: int,
        lambda_: float = 1e-4,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        good = self._finite('lambda_', lambda_) > 0
        self._check(good, 'lambda_', 'positive', lambda_)
        self.lambda_ = lambda_
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        wide = full_precision(x)
        size = x.shape[2] * x.shape[3]
        square = (wide - mean(wide, 2, 3, keep=True)).square()
        # On a CPU torch.var takes ten times as long.
        variance = square.sum((2, 3), True) / max(size - 1, 1)
        energy = square / (4 * (variance + self.lambda_)) + 0.5
        return energy.sigmoid().to(x.dtype)


@MODELS.register_module()
class SimAMConv2d(ShowArguments, nn.Conv2d):
    r"""Convolution with SimAM behind it: SimAM(conv x).

    $$
    y = \mathrm{SimAM}(f(x))
    $$

    $f$ is the convolution. Input is `(N, C, H, W)`, output is what
    `torch.nn.Conv2d` returns. The keys are those of a plain convolution, so
    plain weights fit.

    Args:
        args: As of `torch.nn.Conv2d`.
        lambda_: $\lambda$ of `SimAM`.
        identity_init: Start as the plain convolution, see `Gate`.
        kwargs: As of `torch.nn.Conv2d`.

    Raises:
        InputError: `lambda_` is not positive.

    Placement:
        The authors' networks have it as the 3x3 convolution of every block:
        `dcn=dict(type='mmdet_attn.SimAMConv2d', lambda_=0.1)` with
        `stage_with_dcn=(True, True, True, True)`.

    Evidence:
        See `SimAM`.

    Source:
        See `SimAM`.
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
        """From `(N, C, H, W)` to the gated output of the convolution."""
        return self.simam(super().forward(x))
