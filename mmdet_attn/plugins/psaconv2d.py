"""EPSANet: An Efficient Pyramid Squeeze Attention Block on Convolutional
Neural Network.

2021, https://arxiv.org/abs/2105.14447
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import ShowArguments
from mmdet_attn.plugins.pooling import mean
from mmdet_attn.plugins.se import SE


@MODELS.register_module()
class PSAConv2d(ShowArguments, BaseModule):
    r"""Pyramid squeeze attention: softmax-weighted 3, 5, 7, 9 convolutions.

    $$
    y = [w_S F_S, \ldots, w_1 F_1], \quad F_i = f_i(x), \quad
    w = \mathrm{softmax}_i(\mathrm{SE}(F_i))
    $$

    It replaces a 3x3 convolution. $f_1$ to $f_S$ are grouped convolutions
    with growing kernels, from all $C$ input channels to $C' / S$. One SE gate
    is shared by all $S$ branches, and the softmax runs over them. Input is
    `(N, C, H, W)`, output is `(N, C', H / stride, W / stride)`. It cannot
    start as the identity.

    Args:
        in_channels: The number of input channels $C$.
        out_channels: The number of output channels $C'$.
        kernel_size: Given by a host; not used.
        stride: The stride of every branch.
        padding: Given by a host; not used.
        dilation: Only 1, as in the paper.
        bias: Only False, as in the paper.
        kernel_sizes: The kernel sizes of the $S$ branches, odd.
        groups: The groups of the $S$ branches.
        reduction: The reduction $r$ of the SE gate.

    Raises:
        InputError: A size is not positive or not odd, the channels cannot be
            divided, or `dilation` or `bias` is given.

    Placement:
        The paper puts it in the place of every 3x3 convolution:
        `dcn=dict(type='mmdet_attn.PSAConv2d')` with
        `stage_with_dcn=(True, True, True, True)`. Plain weights do not have
        these layers, so the config freezes nothing behind the stem.

    Evidence:
        No detection result was collected, and none was measured here.

    Source:
        Follows the authors' code (murufeng/EPSANet). The paper splits the
        input between the branches, the code does not. The output has the
        branches in reversed order, as the code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        bias: bool = False,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] = (1, 4, 8, 16),
        reduction: int = 16,
    ) -> None:
        super().__init__()
        self._positive('in_channels', in_channels)
        self._positive('out_channels', out_channels)
        self._positive('stride', stride)
        self._check(dilation == 1, 'dilation', '1', dilation)
        self._check(not bias, 'bias', 'False', bias)
        branches = len(kernel_sizes)
        good = branches > 0 and all(k > 0 and k % 2 for k in kernel_sizes)
        self._check(good, 'kernel_sizes', 'odd', kernel_sizes)
        width = out_channels // max(1, branches)
        self._check(
            len(groups) == branches
            and out_channels % branches == 0
            and all(
                g > 0 and in_channels % g == width % g == 0 for g in groups
            ),
            'groups',
            f'{branches} divisors of {in_channels} input and {out_channels} / '
            f'{branches} output channels',
            groups,
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(
                in_channels,
                width,
                size,
                stride,
                padding=size // 2,
                groups=group,
                bias=False,
            )
            for size, group in zip(kernel_sizes, groups, strict=True)
        )
        self.se = SE(width, reduction)
        self.init_weights()

    def init_weights(self) -> None:
        """As the authors do: N(0, 2 / n) with n = k k C_out."""
        self.se.init_weights()
        layers = [*self.convs, self.se.fc1, self.se.fc2]
        for layer in layers:
            n = layer.weight[:, 0].numel()
            nn.init.normal_(layer.weight, std=(2 / n) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C', H / stride, W / stride)`."""
        features = torch.cat([conv(x) for conv in self.convs[::-1]], 1)
        pooled = mean(features, 2, 3, keep=True)
        # The shared gate takes the branches as a batch.
        branches = len(self.convs)
        gates = self.se.gate(pooled.reshape(-1, self.se.in_channels, 1, 1))
        weights = gates.unflatten(0, (-1, branches)).softmax(1)
        return features * weights.flatten(1, 2).to(features.dtype)
