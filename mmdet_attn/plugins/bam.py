"""BAM: Bottleneck Attention Module.

BMVC 2018, https://arxiv.org/abs/1807.06514
"""

from collections.abc import Mapping

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate, zero_biases
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class BAM(Gate):
    r"""Bottleneck attention: a channel and a spatial branch, joined.

    .. math:: y = x \cdot (1 + \sigma(M_c(x) \cdot M_s(x)))

    :math:`M_c = W_2\,\mathrm{ReLU}(\mathrm{BN}(W_1\,\mathrm{GAP}(x)))` with
    C/r hidden channels; :math:`M_s` is a 1x1 convolution to C/r channels, two
    dilated 3x3 ones, each with BN and ReLU, and a 1x1 one to a single
    channel. Input, output and gate are ``(N, C, H, W)``.

    Args:
        in_channels: C.
        reduction: r; at least one hidden channel is kept.
        dilation: d of the two 3x3 convolutions.
        fusion: ``'mul'`` is the authors' code and weights, ``'add'`` the
            paper's sum of the branches (which ends both with one more BN).
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: A size is not positive or ``fusion`` is unknown; in
            training, BN on a batch of one: the channel branch then has one
            value per channel.

    Follows the authors' code (Jongchan/attention-module), except that it
    takes maps that are not square. The authors place it after the last block
    of the first three stages, outside the residual branch.
    """

    _abbr_ = 'bam'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        dilation: int = 4,
        fusion: str = 'mul',
        norm_cfg: Mapping | None = dict(type='BN'),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        hidden = self._hidden(in_channels, reduction)
        self._positive('dilation', dilation)
        self.fusion = self._one_of('fusion', fusion, ('mul', 'add'))

        def conv(channels: int, size: int) -> list[nn.Module]:
            padding = dilation * (size // 2)
            return [
                nn.Conv2d(
                    channels, hidden, size, padding=padding, dilation=dilation
                ),
                build_norm('BAM', norm_cfg, hidden),
                nn.ReLU(inplace=True),
            ]

        # 1x1 convolutions of the pooled map: linear layers, as 4-D tensors.
        self.channel = nn.Sequential(
            *conv(in_channels, 1), nn.Conv2d(hidden, in_channels, 1)
        )
        self.spatial = nn.Sequential(
            *conv(in_channels, 1),
            *conv(hidden, 3),
            *conv(hidden, 3),
            nn.Conv2d(hidden, 1, 1),
        )
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        zero_biases(self)
        for layer in self.spatial:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode='fan_out')

    def _attention(self, x: Tensor) -> Tensor:
        channel = self.channel(mean(x, 2, 3, keep=True))
        spatial = self.spatial(x)
        if self.fusion == 'add':
            return (channel + spatial).sigmoid_()
        # As a product of matrices, whose gradients are two products, too.
        joined = channel.flatten(2) @ spatial.flatten(2)
        return joined.sigmoid_().view_as(x)

    def gate(self, x: Tensor) -> Tensor:
        return 1 + self._attention(x)

    def forward(self, x: Tensor) -> Tensor:
        attention = self._attention(x).to(x.dtype)
        if self.alpha is not None:
            attention = attention * self.alpha
        if x.requires_grad:
            return x * (1 + attention)
        # One pass over the map less; its gradient would take two more.
        return torch.addcmul(x, x, attention)
