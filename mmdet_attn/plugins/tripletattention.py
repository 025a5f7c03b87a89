"""Rotate to Attend: Convolutional Triplet Attention Module.

WACV 2021, https://arxiv.org/abs/2010.03045
"""

from collections.abc import Mapping

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate, zero_weight
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


class Branch(nn.Module):
    """A convolution over the maximum and the mean along one dimension."""

    def __init__(self, kernel_size: int, norm_cfg: Mapping | None) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=padding, bias=False)
        self.norm = build_norm('TripletAttention', norm_cfg, 1)

    def forward(self, x: Tensor, dim: int) -> Tensor:
        pooled = torch.stack([x.max(dim).values, mean(x, dim)], 1)
        return self.norm(self.conv(pooled)).sigmoid()


@MODELS.register_module()
class TripletAttention(Gate):
    r"""Triplet attention: x · mean of three σ(BN(conv7[max, mean])).

    $$
    y = \frac{1}{3}\,x \cdot (\psi_H(x) + \psi_W(x) + \psi_C(x)), \quad
    \psi_D(x) = \sigma(\mathrm{BN}(f^{k \times k}
    [\mathrm{max}_D\,x; \mathrm{mean}_D\,x]))
    $$

    $\psi_D$ reduces the dimension $D$ and is constant along it, so the three
    are gates over the planes `(C, W)`, `(H, C)` and `(H, W)`.
    $f^{k \times k}$ is a convolution without bias. Input, output and gate are
    `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        kernel_size: The kernel size $k$, odd.
        norm_cfg: The norm of each branch: BN, SyncBN or GN (with
            `num_groups=1`), or None.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, `kernel_size` is even, or the
            norm is unknown.

    Placement:
        The paper puts it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages. The configs use
        `AttentionResNet`, which lets the batch norm of fresh modules learn.

    Evidence:
        The authors trained detectors, but their figures were not collected.
        Not measured here.

    Source:
        Follows the authors' code (landskape-ai/triplet-attention). The scale
        of the batch norm of $\psi_C$, and of no other, starts at zero there.
    """

    _abbr_ = 'tripletattention'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 7,
        norm_cfg: Mapping | None = dict(type='BN', momentum=0.01),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self._odd('kernel_size', kernel_size)
        self.cw = Branch(kernel_size, norm_cfg)
        self.hc = Branch(kernel_size, norm_cfg)
        self.hw = Branch(kernel_size, norm_cfg)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for branch in (self.cw, self.hc, self.hw):
            nn.init.kaiming_normal_(branch.conv.weight, mode='fan_out')
        zero_weight(self.hw.norm)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        # (N, 1, C, W), (N, 1, C, H) turned to (N, 1, H, C), (N, 1, H, W).
        cw = self.cw(x, 2).transpose(1, 2)
        hc = self.hc(x.transpose(1, 2), 3).permute(0, 3, 2, 1)
        return (cw / 3 + hc / 3) + self.hw(x, 1) / 3
