"""CBAM: Convolutional Block Attention Module.

ECCV 2018, https://arxiv.org/abs/1807.06521
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision
from mmdet_attn.plugins.base import Attention, Gate, zero_biases, zero_weight
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean
from mmdet_attn.plugins.residual import splits

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    'avg': lambda x: mean(x, 2, 3),
    # Of equal maxima one gets the gradient, as in max pooling.
    'max': lambda x: x.flatten(2).max(2).values,
    'lp': lambda x: torch.linalg.vector_norm(full_precision(x), dim=(2, 3)),
    'lse': lambda x: full_precision(x).logsumexp((2, 3)),
}


class ChannelGate(Gate):
    """CBAM's channel attention."""

    def __init__(
        self,
        in_channels: int,
        reduction: int,
        pool_types: Sequence[str],
        identity_init: bool,
    ) -> None:
        super().__init__(in_channels, identity_init)
        hidden = self._hidden(in_channels, reduction)
        self.pool_types = tuple(pool_types)
        self.fc1 = nn.Linear(in_channels, hidden)
        self.fc2 = nn.Linear(hidden, in_channels)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        zero_biases(self)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        pooled = [POOLS[name](x).to(x.dtype) for name in self.pool_types]
        hidden = self.fc1(torch.stack(pooled)).relu()
        return self.fc2(hidden).sum(0).sigmoid()[:, :, None, None]


class SpatialGate(Gate):
    """CBAM's spatial attention."""

    def __init__(
        self,
        in_channels: int,
        kernel_size: int,
        norm_cfg: Mapping | None,
        identity_init: bool,
    ) -> None:
        super().__init__(in_channels, identity_init)
        padding = kernel_size // 2
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=padding, bias=False)
        self.norm = build_norm('CBAM', norm_cfg, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.kaiming_normal_(self.conv.weight, mode='fan_out')
        zero_weight(self.norm)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, 1, H, W)`."""
        # The maximum comes first, as the authors' weights expect.
        pooled = torch.cat([x.max(1, True).values, mean(x, 1, keep=True)], 1)
        return self.norm(self.conv(pooled)).sigmoid()


@MODELS.register_module()
class CBAM(Attention):
    r"""Convolutional block attention: x σ(Σ MLP(pool x)) σ(conv7(pool_C)).

    $$
    \begin{aligned}
    x' &= x \cdot \sigma\left(\sum_p W_1\,\mathrm{ReLU}(W_0\,p(x))\right) \\
    y &= x' \cdot \sigma(\mathrm{BN}(f^{k \times k}
    [\mathrm{max}_C\,x'; \mathrm{mean}_C\,x']))
    \end{aligned}
    $$

    A channel gate comes first, a spatial gate second. $p$ runs over the
    poolings over height and width. They share $W_0$ and $W_1$, which have
    biases. $f^{k \times k}$ is a convolution without bias. Input and output
    are `(N, C, H, W)`. `channel.gate` gives `(N, C, 1, 1)`, `spatial.gate`
    gives `(N, 1, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$; $W_0$ leads to $C / r$ channels. At
            least one hidden channel is kept.
        kernel_size: The size $k$ of the spatial convolution, odd.
        pool_types: The poolings $p$: any of `'avg'`, `'max'`, `'lp'` (the L2
            norm) and `'lse'` (log-sum-exp).
        spatial: Whether the spatial gate follows.
        norm_cfg: The norm of the spatial gate: BN, SyncBN or GN (with
            `num_groups=1`), or None.
        identity_init: Start both gates as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, `kernel_size` is even, or a
            pooling or the norm is unknown.

    Placement:
        The paper puts it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages. The configs use
        `AttentionResNet`, which lets the batch norm of fresh modules learn.

    Evidence:
        The ECA-Net paper has CBAM in its ImageNet table only (77.34 top-1
        with ResNet-50, 75.20 without). Users who put CBAM into a network with
        plain weights report a lower AP (mmdetection issue 3247). Not measured
        on COCO here.

    Source:
        Follows the authors' code (Jongchan/attention-module), which their
        weights need. The paper has no batch norm in the spatial gate. The
        scale of this batch norm starts at zero, so a fresh spatial gate is
        0.5 everywhere.
    """

    _abbr_ = 'cbam'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        pool_types: Sequence[str] = ('avg', 'max'),
        spatial: bool = True,
        norm_cfg: Mapping | None = dict(type='BN', momentum=0.01),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels)
        self._odd('kernel_size', kernel_size)
        self._positive('reduction', reduction)
        named = set() if isinstance(pool_types, str) else set(pool_types)
        self._check(
            set() < named <= set(POOLS),
            'pool_types',
            'some of ' + ', '.join(map(repr, POOLS)),
            pool_types,
        )
        self.channel = ChannelGate(
            in_channels, reduction, pool_types, identity_init
        )
        self.spatial: SpatialGate | None = None
        if spatial:
            self.spatial = SpatialGate(
                in_channels, kernel_size, norm_cfg, identity_init
            )

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `Gate.split`: the factor is that of the last gate."""
        last = self.spatial or self.channel
        if not splits(last):
            return self(x), x.new_ones(())
        return last.split(x if last is self.channel else self.channel(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel(x)
        return x if self.spatial is None else self.spatial(x)
