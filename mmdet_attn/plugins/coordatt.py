"""Coordinate Attention for Efficient Mobile Network Design.

CVPR 2021, https://arxiv.org/abs/2103.02907
"""

from collections.abc import Mapping

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Gate, normal_fan_out
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class CoordAtt(Gate):
    r"""Coordinate attention: x σ(F_h mean_W) σ(F_w mean_H).

    $$
    y = x \cdot \sigma(F_h f^h) \cdot \sigma(F_w f^w), \quad
    [f^h; f^w] = \delta(\mathrm{BN}(F_1
    [\mathrm{mean}_W\,x; \mathrm{mean}_H\,x]))
    $$

    $F_1$ leads from $C$ to $\mathrm{max}(C / r, m)$ channels at each of the
    $H + W$ coordinates. $\delta$ is the hard swish. $F_h$ and $F_w$ lead back
    to $C$ channels. Input, output and gate are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$.
        min_channels: The fewest hidden channels $m$.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or the norm is unknown.

    Placement:
        The paper puts it into MobileNets, behind the depthwise convolution.
        Its author advises SE's place for ResNets: `position='after_conv3'`
        in all stages. The configs use `AttentionResNet`, which lets the batch
        norm of fresh modules learn.

    Evidence:
        No detection result was collected, and none was measured here. Users
        report no gain with ResNet-50 (CoordAttention issues 8 and 13).

    Source:
        Follows the authors' code (houqb/CoordAttention).
    """

    _abbr_ = 'coordatt'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 32,
        min_channels: int = 8,
        norm_cfg: Mapping | None = dict(type='BN'),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        least = self._positive('min_channels', min_channels)
        hidden = max(least, self._hidden(in_channels, reduction))
        self.conv1 = nn.Conv2d(in_channels, hidden, 1)
        self.norm = build_norm('CoordAtt', norm_cfg, hidden)
        self.conv_h = nn.Conv2d(hidden, in_channels, 1)
        self.conv_w = nn.Conv2d(hidden, in_channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        normal_fan_out(self)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        height, width = x.shape[2:]
        rows, columns = mean(x, 3), mean(x, 2)
        pooled = torch.cat([rows, columns], 2).unsqueeze(3)
        hidden = F.hardswish(self.norm(self.conv1(pooled)))
        rows, columns = hidden.split([height, width], 2)
        gate_h = self.conv_h(rows).sigmoid()
        gate_w = self.conv_w(columns.transpose(2, 3)).sigmoid()
        return gate_h * gate_w
