"""Selective Kernel Networks.

CVPR 2019, https://arxiv.org/abs/1903.06586
"""

from collections.abc import Mapping

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import ShowArguments
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SKConv2d(ShowArguments, BaseModule):
    r"""Selective kernel: softmax-weighted 3x3 and dilated 3x3 convolution.

    $$
    y = a_1 U_1 + a_2 U_2, \quad
    U_i = \mathrm{ReLU}(\mathrm{BN}(f_i(x))), \quad
    a = \mathrm{softmax}_i(W_2\,\mathrm{ReLU}(\mathrm{BN}(W_1\,
    \mathrm{GAP}(U_1 + U_2))))
    $$

    It replaces a 3x3 convolution. $f_1$ and $f_2$ are grouped 3x3
    convolutions from all $C$ input channels to $C'$, with dilation 1 and 2.
    $\mathrm{GAP}$ is the mean over height and width. $W_1$ leads to
    $\mathrm{max}(C' / r, L)$ channels, and $W_2$ to a weight for each branch
    and channel. There are no biases. Input is `(N, C, H, W)`, output is
    `(N, C', H / stride, W / stride)`. It cannot start as the identity.

    Args:
        in_channels: The number of input channels $C$.
        out_channels: The number of output channels $C'$.
        kernel_size: Only 3, as in the authors' networks.
        stride: The stride of both branches.
        padding: Only 1.
        dilation: Only 1: the authors have no network with another.
        groups: The groups of both convolutions, a divisor of $C$ and $C'$.
        bias: Only False, as in the paper.
        reduction: The reduction $r$ of $W_1$.
        min_channels: The fewest hidden channels $L$.
        norm_cfg: The norm of both branches and of the hidden channels: BN,
            SyncBN or GN, or None.

    Raises:
        InputError: An argument is none of the above. In training: batch norm
            on a batch of one, because the hidden channels then have one value
            each.

    Placement:
        The paper puts it into the block of ResNeXt-50 32x4d, in the place of
        the 3x3 convolution, and its batch norm with it. The backbone
        `mmdet_attn.SKNet` does that; the config has it. Elsewhere
        `dcn=dict(type='mmdet_attn.SKConv2d')` with
        `stage_with_dcn=(True, True, True, True)` keeps that batch norm.

    Evidence:
        No detection result was collected, and none was measured here.

    Source:
        Follows the authors' network definition (implus/SKNet, for Caffe).
        There the momentum of batch norm is 0.05 in torch's terms. timm's
        `SelectiveKernel` is this module in `skresnext50_32x4d` only: by
        default it splits the input between the branches. Copies on the web
        have true 5x5 kernels or more branches, biases, and no batch norm and
        ReLU behind $W_1$.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 32,
        bias: bool = False,
        reduction: int = 16,
        min_channels: int = 32,
        norm_cfg: Mapping | None = dict(type='BN', momentum=0.05),
    ) -> None:
        super().__init__()
        self._positive('in_channels', in_channels)
        self._positive('out_channels', out_channels)
        self._positive('stride', stride)
        self._check(kernel_size == 3, 'kernel_size', '3', kernel_size)
        self._check(dilation == 1, 'dilation', '1', dilation)
        self._check(padding == 1, 'padding', '1', padding)
        self._check(not bias, 'bias', 'False', bias)
        self._check(
            in_channels % self._positive('groups', groups) == 0
            and out_channels % groups == 0,
            'groups',
            f'a divisor of {in_channels} input and {out_channels} output '
            'channels',
            groups,
        )
        hidden = max(
            out_channels // self._positive('reduction', reduction),
            self._positive('min_channels', min_channels),
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(
                in_channels,
                out_channels,
                3,
                stride,
                padding=d,
                dilation=d,
                groups=groups,
                bias=False,
            )
            for d in (1, 2)
        )
        self.norms = nn.ModuleList(
            build_norm('SKConv2d', norm_cfg, out_channels) for _ in (1, 2)
        )
        self.fc1 = nn.Conv2d(out_channels, hidden, 1, bias=False)
        self.norm = build_norm('SKConv2d', norm_cfg, hidden)
        self.fc2 = nn.Conv2d(hidden, 2 * out_channels, 1, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """As the authors do; what a host set in the norms is reset."""
        for norm in (*self.norms, self.norm):
            if not isinstance(norm, nn.Identity):
                norm.reset_parameters()
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.get_parameter('weight'))
        for fc in (self.fc1, self.fc2):
            nn.init.normal_(fc.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C', H / stride, W / stride)`."""
        u1, u2 = (
            norm(conv(x)).relu()
            for conv, norm in zip(self.convs, self.norms, strict=True)
        )
        pooled = mean(u1, 2, 3, keep=True) + mean(u2, 2, 3, keep=True)
        logits = self.fc2(self.norm(self.fc1(pooled)).relu())
        # The first half of the channels belongs to the first branch.
        a1, a2 = logits.unflatten(1, (2, -1)).softmax(1).to(u1.dtype).unbind(1)
        return a1 * u1 + a2 * u2
