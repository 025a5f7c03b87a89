"""BAM: Bottleneck Attention Module.

BMVC 2018, https://arxiv.org/abs/1807.06514
"""

from collections.abc import Mapping

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate, zero_biases
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class BAM(Gate):
    r"""Bottleneck attention module: x (1 + σ(M_c(x) M_s(x))).

    $$
    y = x \cdot (1 + \sigma(M_c(x) \cdot M_s(x))), \quad
    M_c(x) = W_2\,\mathrm{ReLU}(\mathrm{BN}(W_1\,\mathrm{GAP}(x)))
    $$

    $\mathrm{GAP}$ is the mean over height and width, and $W_1$ leads to
    $C / r$ channels. $M_s$ is a 1x1 convolution to $C / r$ channels, two
    dilated 3x3 convolutions, each with batch norm and ReLU, and a 1x1
    convolution to one channel. Input, output and gate are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$. At least one hidden channel is kept.
        dilation: The dilation $d$ of the two 3x3 convolutions.
        fusion: `'mul'` multiplies $M_c$ and $M_s$, as the authors' code and
            weights; `'add'` adds them, as the paper, which also ends both
            with one more batch norm.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or `fusion` or the norm is
            unknown. In training: batch norm on a batch of one, because the
            channel branch then has one value per channel.

    Placement:
        The paper puts it between the stages: `position='after_block'` of the
        last block of stages 1, 2 and 3. The configs use `AttentionResNet`,
        which lets the batch norm of fresh modules learn.

    Evidence:
        No detection result was collected, and none was measured here.

    Source:
        Follows the authors' code (Jongchan/attention-module). That code pools
        square maps only, this one takes maps of any size.
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
        self.dilation = self._positive('dilation', dilation)
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

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        channel = self.channel(mean(x, 2, 3, keep=True))
        spatial = self.spatial(x)
        if self.fusion == 'add':
            return 1 + (channel + spatial).sigmoid()
        return 1 + (channel * spatial).sigmoid()
