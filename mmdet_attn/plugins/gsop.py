"""Global Second-order Pooling Convolutional Networks.

CVPR 2019, https://arxiv.org/abs/1811.12006
"""

from collections.abc import Mapping

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.amp import full_precision, without_autocast
from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.norm import build_norm

GRID = 8


@MODELS.register_module()
class GSoP(Gate):
    r"""Global second-order pooling: x σ(W2 W1 cov(x)).

    $$
    y = x \cdot \sigma(W_2 W_1\,\mathrm{BN}(\mathrm{cov}(z))), \quad
    z = \mathrm{ReLU}(\mathrm{BN}(W_0\,\mathrm{ReLU}(x)))
    $$

    This is mode `'channel'`. $W_0$ leads from $C$ to $d$ channels and
    $\mathrm{cov}$ is their `(d, d)` covariance over height and width. $W_1$
    gives 4 values for each of its rows, and $W_2$ leads from $4d$ to $C$
    channels. The gate is `(N, C, 1, 1)`.

    In mode `'position'`, $z$ has no ReLU and is averaged to 8 x 8 positions.
    The statistic relates these 64 positions, and a ReLU follows $W_1$. The 64
    gates are enlarged to `(N, 1, H, W)`, and $y = \mathrm{ReLU}(x \cdot g)$.
    Input and output are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        att_dim: The number of reduced channels $d$.
        stride: The stride of $W_0$. None is the authors' choice: 2 for 256
            channels (stage 1 of ResNet-50) in mode `'channel'`, otherwise 1.
        mode: `'channel'` or `'position'`.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or the mode or norm is unknown.

    Placement:
        The paper puts it into the last block of each stage, between the last
        batch norm and the addition: `position='after_conv3'`, `blocks=(-1,)`.
        Its stage 4 has stride 1; the config's has 2, as an FPN expects. The
        config uses `AttentionResNet`, which lets the batch norm of fresh
        modules learn.

    Evidence:
        The ECA-Net paper has it in its ImageNet table only: 77.68 top-1 with
        ResNet-50, 75.20 without. Not measured in detection.

    Source:
        Follows the authors' code
        (ZilinGao/Global-Second-order-Pooling-Convolutional-Networks). As
        there, mode `'position'` centres with 1/64 where a covariance needs
        $1 / d$. The statistics are computed in float32 at least.
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
        self._positive('att_dim', att_dim)
        self.mode = self._one_of('mode', mode, ('channel', 'position'))
        channel = mode == 'channel'
        if stride is None:
            stride = 2 if channel and in_channels == 256 else 1
        self._positive('stride', stride)
        rows = att_dim if channel else GRID * GRID
        self.stride = stride
        self.reduce = nn.Conv2d(in_channels, att_dim, 1)
        self.norm = build_norm('GSoP', norm_cfg, att_dim)
        self.row_norm = build_norm('GSoP', norm_cfg, rows)
        self.row_conv = nn.Conv2d(rows, 4 * rows, (rows, 1), groups=rows)
        self.expand = nn.Conv2d(4 * rows, in_channels if channel else rows, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for conv in (self.reduce, self.row_conv, self.expand):
            nn.init.kaiming_normal_(conv.weight, mode='fan_out')

    def _covariance(self, z: Tensor) -> Tensor:
        """From `(N, d, h, w)` to `(N, d, d)`, over the positions."""
        z = full_precision(z.relu()).flatten(2)
        centred = z - z.mean(2, keepdim=True)
        return centred @ centred.transpose(1, 2) / z.shape[2]

    def _position_statistic(self, z: Tensor) -> Tensor:
        """From `(N, d, h, w)` to `(N, 64, 64)`, over the channels."""
        z = full_precision(F.adaptive_avg_pool2d(z, GRID)).flatten(2)
        total = z.sum(1, keepdim=True) / z.shape[2]
        product = z.transpose(1, 2) @ z / z.shape[2]
        return product - total.transpose(1, 2) @ total

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)` or `(N, 1, H, W)`."""
        channel = self.mode == 'channel'
        s = self.stride
        z = self.norm(self.reduce(x[:, :, ::s, ::s].relu()))
        with without_autocast(x):
            statistic = (
                self._covariance(z) if channel else self._position_statistic(z)
            )
        statistic = statistic.to(self.row_conv.weight.dtype)
        rows = self.row_conv(self.row_norm(statistic.unsqueeze(3)))
        if channel:
            return self.expand(rows).sigmoid()
        gate = self.expand(rows.relu()).sigmoid().view(-1, 1, GRID, GRID)
        return F.adaptive_avg_pool2d(gate, (x.shape[2], x.shape[3]))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Gate.split`. By position, the factor is one."""
        if self.mode == 'channel':
            return super().split(x)
        return self(x), x.new_ones(())

    def forward(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to a map of the same shape."""
        if self.mode == 'channel':
            return super().forward(x)
        return self._blend(x, (x * self.gate(x).to(x.dtype)).relu())
