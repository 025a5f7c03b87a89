"""A2-Nets: Double Attention Networks.

NeurIPS 2018, https://arxiv.org/abs/1810.11579
"""

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Attention, zero_biases, zero_weight


@MODELS.register_module()
class A2(Attention):
    r"""Double attention block: x + W gather(x) distribute(x).

    $$
    y = x + W_z\,[A(x)\,\mathrm{softmax}_{HW}(B(x))^\top]\,
    \mathrm{softmax}_{c_n}(V(x))
    $$

    $A$, $B$ and $V$ are 1x1 convolutions to $c_m$, $c_n$ and $c_n$ channels.
    $W_z$ leads from $c_m$ back to $C$ channels. The first product gathers
    features over all positions, the second distributes them. Input and output
    are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$: $c_m = c_n = C / r$, at least 1. With 2,
            a ResNet-50 with five blocks has the 33.0 M parameters that were
            reported for it.

    Raises:
        InputError: `in_channels` or `reduction` is not positive.

    Placement:
        The paper puts five blocks behind blocks of stages 2 and 3:
        `position='after_block'` of blocks 1 and 3 of stage 2, and of blocks
        1, 3 and 5 of stage 3.

    Evidence:
        The ECA-Net paper has it in its ImageNet table only: 77.00 top-1 with
        ResNet-50, 75.20 without. Not measured in detection.

    Source:
        Written from the paper. No code for images was released. The paper
        does not say how the block starts; here $W_z = 0$, the identity.
    """

    _abbr_ = 'a2'

    def __init__(self, in_channels: int, reduction: int = 2) -> None:
        super().__init__(in_channels)
        inner = self._hidden(in_channels, reduction)
        self.conv_a = nn.Conv2d(in_channels, inner, 1)
        self.conv_b = nn.Conv2d(in_channels, inner, 1)
        self.conv_v = nn.Conv2d(in_channels, inner, 1)
        self.out = nn.Conv2d(inner, in_channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        zero_weight(self.out)
        zero_biases(self.out)

    def forward(self, x: Tensor) -> Tensor:
        # Both softmaxes add up to one, so A may follow the gathering and W_z
        # precede the distribution: they meet c_n columns instead of H W.
        maps = self.conv_b(x).flatten(2).softmax(2).to(x.dtype)
        vectors = self.conv_v(x).flatten(2).softmax(1).to(x.dtype)
        gathered = (x.flatten(2) @ maps.transpose(1, 2)).unsqueeze(3)
        descriptors = self.out(self.conv_a(gathered)).squeeze(3)
        return x + (descriptors @ vectors).to(x.dtype).view_as(x)
