"""Large Selective Kernel Network for Remote Sensing Object Detection.

ICCV 2023, https://arxiv.org/abs/2303.09030
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import (
    Attention,
    Gate,
    normal_fan_out,
    zero_weight,
)
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class LSK(Gate):
    r"""Large selective kernel: x · W (s1 A conv5(x) + s2 B conv7(conv5(x))).

    $$
    y = x \cdot W (s_1 a + s_2 b), \quad
    [s_1; s_2] = \sigma(f^{7 \times 7}
    [\mathrm{mean}_C\,[a; b]; \mathrm{max}_C\,[a; b]]), \quad
    a = A u_1, \quad b = B u_2
    $$

    $u_1$ is a depth-wise 5x5 convolution of $x$, and $u_2$ is a depth-wise
    7x7 convolution of $u_1$ with dilation 3. $A$ and $B$ lead to $C / 2$
    channels and $W$ leads back. Input, output and gate are `(N, C, H, W)`.
    No sigmoid bounds the gate, so the output grows as the square of the
    input.

    Args:
        in_channels: The number of channels $C$, at least 2.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is no integer from 2 on.

    Placement:
        The authors have it in a unit of its own, see `LSKUnit`, in every
        block of LSKNet. They say that it may stand in other networks behind
        a few layers of convolution; the best place is not known. The config
        puts it behind the 3x3 convolution: `position='after_conv2'` in all
        stages. Behind the last convolution it would add 31 M parameters.

    Evidence:
        The paper's figures are those of LSKNet on aerial images, not of the
        module in another network. Not measured here.

    Source:
        Follows the authors' network (zcablii/LSKNet, `LSKblock`) and keeps
        its key names and its initialisation.
    """

    _abbr_ = 'lsk'

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels, identity_init)
        self._check(in_channels >= 2, 'in_channels', 'at least 2', in_channels)
        c, half = in_channels, in_channels // 2
        self.conv0 = nn.Conv2d(c, c, 5, padding=2, groups=c)
        self.conv_spatial = nn.Conv2d(c, c, 7, padding=9, dilation=3, groups=c)
        self.conv1 = nn.Conv2d(c, half, 1)
        self.conv2 = nn.Conv2d(c, half, 1)
        self.conv_squeeze = nn.Conv2d(2, 2, 7, padding=3)
        self.conv = nn.Conv2d(half, c, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        normal_fan_out(self)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        near = self.conv0(x)
        a, b = self.conv1(near), self.conv2(self.conv_spatial(near))
        both = torch.cat([a, b], 1)
        # The mean comes first, as the authors' weights expect.
        pooled = torch.cat(
            [mean(both, 1, keep=True), both.max(1, True).values], 1
        )
        s1, s2 = self.conv_squeeze(pooled).sigmoid().chunk(2, 1)
        return self.conv(a * s1 + b * s2)


@MODELS.register_module()
class LSKUnit(Attention):
    r"""LSK between two 1x1 convolutions: x + W2 LSK(gelu(W1 x)).

    $$
    y = x + W_2\,\mathrm{LSK}(\mathrm{GELU}(W_1 x))
    $$

    $W_1$ and $W_2$ are 1x1 convolutions from $C$ to $C$ channels. Input and
    output are `(N, C, H, W)`; `spatial_gating_unit.gate` gives LSK's map.

    Args:
        in_channels: The number of channels $C$, at least 2.
        identity_init: Start as the identity: $W_2$ and its bias start at
            zero. It adds no parameter, and weights that are loaded replace
            the zeros.

    Raises:
        InputError: `in_channels` is no integer from 2 on.

    Placement:
        LSKNet has it in every block, behind a batch norm and under a scale
        for each channel that starts at 0.01. A plugin has no such scale:
        `identity_init=True` is the start that comes nearest. The config puts
        it behind the 3x3 convolution: `position='after_conv2'` in all
        stages. Behind the last convolution it would add 72 M parameters.

    Evidence:
        See `LSK`.

    Source:
        Follows the authors' network (zcablii/LSKNet, `Attention`) and keeps
        its key names and its initialisation.
    """

    _abbr_ = 'lskunit'

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels)
        self._check(in_channels >= 2, 'in_channels', 'at least 2', in_channels)
        self.identity_init = identity_init
        self.proj_1 = nn.Conv2d(in_channels, in_channels, 1)
        self.spatial_gating_unit = LSK(in_channels)
        self.proj_2 = nn.Conv2d(in_channels, in_channels, 1)
        self.init_weights()

    @property
    def starts_as_identity(self) -> bool:
        return self.identity_init

    def init_weights(self) -> None:
        super().init_weights()
        normal_fan_out(self.proj_1, self.proj_2)
        if self.identity_init:
            zero_weight(self.proj_2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.spatial_gating_unit(F.gelu(self.proj_1(x)))
        return x + self.proj_2(y).to(x.dtype)
