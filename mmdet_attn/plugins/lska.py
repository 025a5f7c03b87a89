"""Large Separable Kernel Attention: Rethinking the Large Kernel Attention
Design in CNN.

Expert Systems with Applications 2024, https://arxiv.org/abs/2309.01439
"""

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate, normal_fan_out

# Of each kernel size: the two sizes that it is put together from, and the
# dilation of the second.
SIZES = {
    7: (3, 3, 2),
    11: (3, 5, 2),
    23: (5, 7, 3),
    35: (5, 11, 3),
    41: (5, 13, 3),
    53: (5, 17, 3),
}


@MODELS.register_module()
class LSKA(Gate):
    r"""Large separable kernel attention: x · W conv(k, 1) conv(1, k) x.

    $$
    y = x \cdot W\,v_b\,h_b\,v_a\,h_a\,x
    $$

    $h_a$ and $v_a$ are depth-wise convolutions of $1 \times a$ and
    $a \times 1$. $h_b$ and $v_b$ are depth-wise convolutions of $1 \times b$
    and $b \times 1$ with dilation $d$. $W$ is a 1x1 convolution from $C$ to
    $C$ channels. Input, output and gate are `(N, C, H, W)`. No sigmoid bounds
    the gate, so the output grows as the square of the input.

    | $k$ | 7 | 11 | 23 | 35 | 41 | 53 |
    |---|---|---|---|---|---|---|
    | $a$ | 3 | 3 | 5 | 5 | 5 | 5 |
    | $b$ | 3 | 5 | 7 | 11 | 13 | 17 |
    | $d$ | 2 | 2 | 3 | 3 | 3 | 3 |

    Args:
        in_channels: The number of channels $C$.
        kernel_size: The size $k$ that the four convolutions have together.
            It has no default, as in the authors' code.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive, or $k$ is none of these.

    Placement:
        The authors have it in VAN, in a unit of the form of `LSKUnit`, in
        every block. The config puts it behind the 3x3 convolution:
        `position='after_conv2'` in all stages. Behind the last convolution
        it would add 21 M parameters. $k$ is 23 there, as in the authors'
        ImageNet weights.

    Evidence:
        The paper's figures are those of VAN, not of the module in another
        network. Not measured here.

    Source:
        Follows the authors' classification network
        (StevenLauHKHK/Large-Separable-Kernel-Attention) and keeps its key
        names and its initialisation. The authors' detection code has the same
        module under other key names: `DW_conv_h`, `DW_conv_v`,
        `DW_D_conv_h`, `DW_D_conv_v` and `conv1`.
    """

    _abbr_ = 'lska'

    def __init__(
        self, in_channels: int, kernel_size: int, identity_init: bool = False
    ) -> None:
        super().__init__(in_channels, identity_init)
        self._check(
            self._positive('kernel_size', kernel_size) in SIZES,
            'kernel_size',
            f'one of {", ".join(map(str, SIZES))}',
            kernel_size,
        )
        a, b, d = SIZES[kernel_size]

        def line(height: int, width: int, dilation: int = 1) -> nn.Conv2d:
            return nn.Conv2d(
                in_channels,
                in_channels,
                (height, width),
                padding=(dilation * (height // 2), dilation * (width // 2)),
                dilation=dilation,
                groups=in_channels,
            )

        self.conv0h = line(1, a)
        self.conv0v = line(a, 1)
        self.conv_spatial_h = line(1, b, d)
        self.conv_spatial_v = line(b, 1, d)
        self.conv1 = nn.Conv2d(in_channels, in_channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        normal_fan_out(self)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        near = self.conv0v(self.conv0h(x))
        return self.conv1(self.conv_spatial_v(self.conv_spatial_h(near)))
