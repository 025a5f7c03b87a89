"""Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks.

NeurIPS 2018, https://arxiv.org/abs/1810.12348
"""

from collections.abc import Mapping

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.errors import InputError
from mmdet_attn.plugins.base import Gate, zero_biases
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class GE(Gate):
    r"""Gather and excite: x σ(up(strided depth-wise convs)).

    $$
    y = x \cdot \sigma(\mathrm{up}(\xi_G(x)))
    $$

    $\xi_G$ gathers each channel over neighbourhoods of extent $e$.
    $\mathrm{up}$ brings the result back to $H \times W$ by nearest neighbour.
    Input and output are `(N, C, H, W)`. The gate is `(N, C, 1, 1)` for global
    extent, otherwise `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        variant: `'theta_minus'` (the paper's $\theta^-$) averages and has no
            parameters. `'theta'` gathers by depth-wise convolutions with
            batch norm: $\log_2 e$ of stride 2, or one of the size of the map.
            `'theta_plus'` adds an SE excitation ($r = 16$) to that.
        extent: The extent $e$, a power of two from 2 on, or 0 for global.
        spatial_size: $H$ and $W$. `'theta'` and `'theta_plus'` of global
            extent need it, because their kernel is that large; no other does.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: An argument is none of the above. In `forward`: a map that
            is not of `spatial_size`, or, in training, batch norm with global
            extent on a batch of one.

    Placement:
        The paper puts it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages. The config has
        extent 8, because the paper's best, global extent, fits one input size
        only. It uses `AttentionResNet`, which lets the batch norm of fresh
        modules learn.

    Evidence:
        No detection result was collected, and none was measured here.

    Source:
        Written from the paper and, for global extent, the authors' network
        definitions (hujie-frank/GENet). No code for smaller extents was
        released. Averages count the padding, as in Caffe, their framework.
    """

    _abbr_ = 'ge'

    def __init__(
        self,
        in_channels: int,
        variant: str = 'theta',
        extent: int = 4,
        spatial_size: int | tuple[int, int] | None = None,
        norm_cfg: Mapping | None = dict(type='BN', momentum=0.05),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        variants = ('theta', 'theta_minus', 'theta_plus')
        self.variant = self._one_of('variant', variant, variants)
        good = type(extent) is int and extent != 1 and extent >= 0
        good = good and extent & (extent - 1) == 0
        self._check(good, 'extent', '0 or a power of two from 2 on', extent)
        self.extent = extent
        self.spatial_size = self._size(spatial_size)
        self.gather = nn.Sequential()
        self.excite = nn.Sequential()
        if variant != 'theta_minus':
            self._make_gather(norm_cfg)
        if variant == 'theta_plus':
            hidden = self._hidden(in_channels, 16)
            self.excite = nn.Sequential(
                nn.ReLU(inplace=True),
                nn.Conv2d(in_channels, hidden, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, in_channels, 1),
            )
        self.init_weights()

    def _size(
        self, size: int | tuple[int, int] | None
    ) -> tuple[int, int] | None:
        needed = self.extent == 0 and self.variant != 'theta_minus'
        self._check(
            needed == (size is not None),
            'spatial_size',
            f'{"given" if needed else "None"} for variant={self.variant!r}, '
            f'extent={self.extent}',
            size,
        )
        if size is None:
            return None
        pair = (size, size) if isinstance(size, int) else tuple(size)
        self._check(len(pair) == 2, 'spatial_size', 'H or (H, W)', size)
        for side in pair:
            self._positive('spatial_size', side)
        return pair[0], pair[1]

    def _make_gather(self, norm_cfg: Mapping | None) -> None:
        channels, size = self.in_channels, self.spatial_size
        for step in range(max(1, self.extent.bit_length() - 1)):
            if step:
                self.gather.append(nn.ReLU(inplace=True))
            shape: dict = dict(kernel_size=3, stride=2, padding=1)
            if size is not None:
                shape = dict(kernel_size=size)
            conv = nn.Conv2d(
                channels, channels, groups=channels, bias=False, **shape
            )
            self.gather.append(conv)
            self.gather.append(build_norm('GE', norm_cfg, channels))

    def init_weights(self) -> None:
        super().init_weights()
        for layer in self.gather:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        for layer in self.excite:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
        zero_biases(self.excite)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)` or `(N, C, H, W)`."""
        size = x.shape[2], x.shape[3]
        if self.spatial_size not in (None, size):
            raise InputError(
                f'GE: global extent was built for maps of spatial_size '
                f'{self.spatial_size}, got {size}: resize the input, or take '
                f'extent=2, 4 or 8, which fit any size.'
            )
        if self.variant != 'theta_minus':
            context = self.gather(x)
        elif self.extent:
            e = self.extent
            context = F.avg_pool2d(x, 2 * e - 1, e, e - 1)
        else:
            context = mean(x, 2, 3, keep=True)
        gate = self.excite(context).sigmoid()
        return F.interpolate(gate, size) if self.extent else gate
