"""Efficient Multi-Scale Attention Module with Cross-Spatial Learning.

ICASSP 2023, https://arxiv.org/abs/2305.13563
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class EMA(Gate):
    r"""Efficient multi-scale attention: x σ(s(x1) · x2 + s(x2) · x1).

    $$
    \begin{aligned}
    y &= x \cdot \sigma(s(x_1) \cdot x_2 + s(x_2) \cdot x_1), \quad
    s(z) = \mathrm{softmax}_c(\mathrm{GAP}(z)) \\
    x_1 &= \mathrm{GN}(x \cdot \sigma(r) \cdot \sigma(q)), \quad
    [r; q] = F_1 [\mathrm{mean}_W\,x; \mathrm{mean}_H\,x], \quad
    x_2 = F_3 x
    \end{aligned}
    $$

    The channels are cut into $f$ groups of $k = C / f$, and all groups share
    the weights. $F_1$ is a 1x1 convolution and $F_3$ a 3x3 convolution, both
    from $k$ to $k$ channels. $\mathrm{GN}$ normalises each channel of each
    image. The dot is the sum over the $k$ channels of a group. Input, output
    and gate are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$, a multiple of `factor`.
        factor: The number of groups $f$. Copies on the web have 8, which
            gives 16 times the parameters.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or `factor` does not divide $C$.

    Placement:
        The author advises the places of NAM in a ResNet and of coordinate
        attention in a MobileNet. In a ResNet this is every block, between the
        last batch norm and the addition: `position='after_conv3'` in all
        stages. In YOLOv5s the author has it behind the last two C3 blocks of
        the backbone.

    Evidence:
        No detection result was collected, and none was measured here.

    Source:
        Follows the authors' code (YOLOonMe/EMA-attention-module) and keeps
        its key names. The mean of $x_1$ is the bias of its norm for every
        input, so $s(x_1)$ is computed from this bias. The parameters that the
        authors report for ResNets do not follow from their code.
    """

    _abbr_ = 'ema'

    def __init__(
        self,
        in_channels: int,
        factor: int = 32,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.groups = self._positive('factor', factor)
        rule = f'a divisor of {in_channels} channels'
        self._check(in_channels % factor == 0, 'factor', rule, factor)
        width = in_channels // factor
        self.gn = nn.GroupNorm(width, width)
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        height, width = x.shape[2:]
        z = x.unflatten(1, (self.groups, -1)).flatten(0, 1)
        pooled = torch.cat([mean(z, 3), mean(z, 2)], 2).unsqueeze(3)
        gates = self.conv1x1(pooled).sigmoid()
        rows, columns = gates.split([height, width], 2)
        # The layer itself would refuse a single value per channel.
        gn = self.gn
        x1 = z * rows * columns.transpose(2, 3)
        x1 = torch.group_norm(x1, gn.num_groups, gn.weight, gn.bias, gn.eps)
        x2 = self.conv3x3(z)
        s1 = gn.bias.softmax(0).unsqueeze(0)
        s2 = mean(x2, 2, 3).softmax(1).unsqueeze(1)
        gate = s1 @ x2.flatten(2) + s2 @ x1.flatten(2)
        gate = gate.sigmoid().view(-1, self.groups, 1, height, width)
        return gate.expand(-1, -1, z.shape[1], -1, -1).flatten(1, 2)
