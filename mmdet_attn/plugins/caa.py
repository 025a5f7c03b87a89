"""CAA, the context anchor attention of: Poly Kernel Inception Network for
Remote Sensing Detection.

CVPR 2024, https://arxiv.org/abs/2403.06258
"""

from collections import OrderedDict

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Gate, zero_biases


@MODELS.register_module()
class CAA(Gate):
    r"""Context anchor attention: x σ(W2 conv(k, 1) conv(1, k) W1 pool7 x).

    $$
    y = x \cdot A(x), \quad
    A(x) = \sigma(W_2\,v\,h\,W_1\,\mathrm{mean}_{7 \times 7}\,x)
    $$

    The mean over 7x7 positions has stride 1 and counts the padding. $W_1$ and
    $W_2$ are 1x1 convolutions from $C$ to $C$ channels, $h$ and $v$ are
    depth-wise convolutions of $1 \times k$ and $k \times 1$. All have biases,
    and nothing stands between them. Input, output and gate are
    `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        kernel_size: The size $k$, odd. In PKINet it is 11 in the first block
            of a stage and grows by 2 from block to block.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or `kernel_size` is even.

    Placement:
        PKINet computes the factor $A$ beside its convolutions of several
        sizes: $A(f)$ of their input $f$ multiplies their output $y$, and
        $y + y \cdot A(f)$ goes on. A plugin sees one map only, so $x \cdot
        A(x)$ is a derived form and not the authors' own plugin; nor would
        $x (1 + A(x))$ be. `identity_init=True` keeps the shortcut at the
        start. The config puts it behind the 3x3 convolution:
        `position='after_conv2'` in all stages. Behind the last convolution
        it would add 41 M parameters.

    Evidence:
        The paper's figures are those of PKINet on aerial images, not of the
        module in another network. Not measured here.

    Source:
        Follows the authors' network
        (NUST-Machine-Intelligence-Laboratory/PKINet) and keeps its key names.
        The defaults of its class have batch norm and SiLU behind $W_1$ and
        $W_2$, but PKINet turns both off, and the released weights have
        neither. Popular copies have the batch norm and the SiLU.
    """

    _abbr_ = 'caa'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 11,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        k, c = self._odd('kernel_size', kernel_size), in_channels

        def conv(height: int, width: int, groups: int = 1) -> nn.Sequential:
            size, padding = (height, width), (height // 2, width // 2)
            layer = nn.Conv2d(c, c, size, padding=padding, groups=groups)
            # The authors' keys have one more name: conv1.conv.weight.
            return nn.Sequential(OrderedDict(conv=layer))

        self.conv1 = conv(1, 1)
        self.h_conv = conv(1, k, groups=c)
        self.v_conv = conv(k, 1, groups=c)
        self.conv2 = conv(1, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        zero_biases(self)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        pooled = F.avg_pool2d(x, 7, 1, 3)
        lines = self.v_conv(self.h_conv(self.conv1(pooled)))
        return self.conv2(lines).sigmoid()
