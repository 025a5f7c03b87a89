"""SRM: A Style-based Recalibration Module for Convolutional Neural Networks.

ICCV 2019, https://arxiv.org/abs/1903.10829
"""

from collections.abc import Mapping

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins.amp import full_precision
from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SRM(Gate):
    r"""Style-based recalibration: x σ(BN(w1 mean x + w2 std x)).

    $$
    y = x \cdot \sigma(\mathrm{BN}(w_1 \mu + w_2 s)), \quad
    s = \sqrt{\mathrm{var}(x) + 10^{-5}}
    $$

    $\mu$ and $\mathrm{var}$ are the mean of each channel over height and
    width and its variance, divided by $HW - 1$. $w_1$ and $w_2$ are two
    weights for each channel. Input and output are `(N, C, H, W)`, the gate is
    `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive, or the norm is unknown. A
            map has one pixel, which has no variance. In training: batch norm
            on a batch of one, because each channel then has one value.

    Placement:
        The paper puts it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages. The config uses
        `AttentionResNet`, which lets the batch norm of fresh modules learn.
        Its `attention_decay` trains the weights and the batch norm without
        weight decay, as the authors do.

    Evidence:
        No detection result was collected, and none was measured here.

    Source:
        Follows the authors' code
        (hyunjaelee410/style-based-recalibration-module): $w_1$ and $w_2$
        start at zero. A popular copy (changzy00/pytorch-attention) starts
        them at random and leaves out the 1e-5. The statistics are computed in
        float32 at least.
    """

    _abbr_ = 'srm'

    def __init__(
        self,
        in_channels: int,
        norm_cfg: Mapping | None = dict(type='BN'),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.cfc = nn.Parameter(torch.zeros(in_channels, 2))
        self.norm = build_norm('SRM', norm_cfg, in_channels)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.zeros_(self.cfc)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        size = x.shape[2] * x.shape[3]
        if size == 1:
            raise InputError(
                'SRM: a map must have more than one pixel, got '
                f'{tuple(x.shape)}: use larger images, or leave SRM out of '
                'the last stages.'
            )
        wide = full_precision(x)
        mu = mean(wide, 2, 3, keep=True)
        # On a CPU torch.var takes ten times as long.
        variance = (wide - mu).square().sum((2, 3), True) / (size - 1)
        s = (variance + 1e-5).sqrt()
        w1, w2 = self.cfc[:, :, None, None].unbind(1)
        return self.norm((w1 * mu + w2 * s).to(self.cfc.dtype)).sigmoid()
