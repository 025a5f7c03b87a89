"""Global Second-order Pooling Convolutional Networks.

CVPR 2019, https://arxiv.org/abs/1811.12006
"""

from collections.abc import Mapping

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.amp import full_precision, without_autocast
from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.gram import gram
from mmdet_attn.plugins.norm import build_norm

GRID = 8


@MODELS.register_module()
class GSoP(Gate):
    r"""Attention from second-order statistics.

    .. math:: y = x \cdot \sigma(W_2\,W_1\,\mathrm{BN}(\mathrm{cov}(z))),
        \quad z = \mathrm{ReLU}(\mathrm{BN}(W_0\,\mathrm{ReLU}(x)))

    in mode ``'channel'``: :math:`W_0` leads from C to d channels, cov is
    their ``(d, d)`` covariance over H and W, :math:`W_1` gives 4 values for
    each of its rows and :math:`W_2` leads from 4d to C. The gate is
    ``(N, C, 1, 1)``.

    In mode ``'position'`` z, without its ReLU, is averaged to a grid of 8 x 8,
    and the statistic relates its 64 positions; a ReLU comes between
    :math:`W_1` and :math:`W_2`, the 64 gates are brought to ``(N, 1, H, W)``,
    and :math:`y = \mathrm{ReLU}(x \cdot \mathrm{gate})`.

    Input and output are ``(N, C, H, W)``.

    Args:
        in_channels: C.
        att_dim: d.
        stride: Of the first convolution. None is the authors' choice: 2 for
            256 channels (the first stage of ResNet-50), else 1; 1 in mode
            ``'position'``.
        mode: ``'channel'`` or ``'position'``.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: A size is not positive or the mode unknown.

    Follows the authors' code
    (ZilinGao/Global-Second-order-Pooling-Convolutional-Networks). Mode
    ``'position'`` centres with 1/64 where a covariance needs 1/d, as they do.
    The statistics are computed in float32 at least.
    """

    _abbr_ = 'gsop'

    def __init__(
        self,
        in_channels: int,
        att_dim: int = 128,
        stride: int | None = None,
        mode: str = 'channel',
        norm_cfg: Mapping | None = dict(type='BN'),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.mode = self._one_of('mode', mode, ('channel', 'position'))
        self._positive('att_dim', att_dim)
        channel = mode == 'channel'
        if stride is None:
            stride = 2 if channel and in_channels == 256 else 1
        self._positive('stride', stride)
        rows = att_dim if channel else GRID * GRID
        self.reduce = nn.Conv2d(in_channels, att_dim, 1, stride)
        self.norm = build_norm('GSoP', norm_cfg, att_dim)
        self.row_norm = build_norm('GSoP', norm_cfg, rows)
        self.row_conv = nn.Conv2d(rows, 4 * rows, (rows, 1), groups=rows)
        self.expand = nn.Conv2d(4 * rows, in_channels if channel else rows, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for conv in (self.reduce, self.row_conv, self.expand):
            nn.init.kaiming_normal_(conv.weight, mode='fan_out')

    @staticmethod
    def _covariance(z: Tensor) -> Tensor:
        """(N, d, d) over the positions of (N, d, h, w)."""
        z = full_precision(z).flatten(2)
        centred = z - z.mean(2, keepdim=True)
        return gram(centred) / z.shape[2]

    @staticmethod
    def _position_statistic(z: Tensor) -> Tensor:
        """(N, M, M) over the d channels of (N, d, h, w), where M = h w."""
        z = full_precision(z).flatten(2)
        total = z.sum(1, keepdim=True) / z.shape[2]
        return (
            z.transpose(1, 2) @ z / z.shape[2] - total.transpose(1, 2) @ total
        )

    def _rows(self, statistic: Tensor) -> Tensor:
        statistic = statistic.to(self.row_conv.weight.dtype)
        return self.row_conv(self.row_norm(statistic.unsqueeze(3)))

    def gate(self, x: Tensor) -> Tensor:
        z = self.norm(self.reduce(x.relu()))
        with without_autocast(x):
            if self.mode == 'channel':
                statistic = self._covariance(z.relu())
            else:
                z = F.adaptive_avg_pool2d(z, GRID)
                statistic = self._position_statistic(z)
        rows = self._rows(statistic)
        if self.mode == 'channel':
            return self.expand(rows).sigmoid()
        gate = self.expand(rows.relu()).sigmoid().view(-1, 1, GRID, GRID)
        return F.adaptive_avg_pool2d(gate, (x.shape[2], x.shape[3]))

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == 'channel':
            return super().forward(x)
        y = (x * self.gate(x).to(x.dtype)).relu()
        return self._blend(x, y)
