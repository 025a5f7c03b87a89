"""ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks.

CVPR 2020, https://arxiv.org/abs/1910.03151
"""

import math

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class ECA(Gate):
    r"""Efficient channel attention: x σ(conv1d_k(mean x)).

    $$
    y = x \cdot \sigma(\mathrm{C1D}_k(\mathrm{GAP}(x)))
    $$

    $\mathrm{GAP}$ is the mean over height and width. $\mathrm{C1D}_k$ is a
    convolution along the channels with $k$ weights, zero padding and no
    bias. Input and output are `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        kernel_size: The kernel size $k$, odd. None takes the paper's
            adaptive size $k = |(\log_2 C + b) / \gamma|_{odd}$: 3 for 64
            channels, 5 for 128 to 1024, 7 for 2048.
        gamma: $\gamma$ of the adaptive size.
        b: $b$ of the adaptive size.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or `kernel_size` is even.

    Placement:
        The paper puts it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages. The kernel sizes
        in the configs are those of the authors' ImageNet weights: 3, 5, 5, 7
        in the stages of ResNet-50 and 3, 3, 5, 7 in those of ResNet-101.

    Evidence:
        The paper reports these gains of box AP on COCO (Table 5), from
        ECA-pretrained weights: +1.6 for Faster R-CNN, +1.8 for Mask R-CNN and
        +1.7 for RetinaNet with ResNet-50; +1.6, +1.9 and +1.4 with
        ResNet-101. Not measured here.

    Source:
        Written from the paper's equations 9 and 12. The authors' code
        (BangguWu/ECANet) computes the same. Their weights for ResNet do not
        have the adaptive kernel sizes, which are 5, 5, 5, 7 for ResNet-50.
    """

    _abbr_ = 'eca'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | None = None,
        gamma: float = 2,
        b: float = 1,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        if kernel_size is None:
            kernel_size = self.adaptive_kernel_size(in_channels, gamma, b)
        padding = self._odd('kernel_size', kernel_size) // 2
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=padding, bias=False)
        self.init_weights()

    @classmethod
    def adaptive_kernel_size(
        cls, channels: int, gamma: float, b: float
    ) -> int:
        """The paper's k; where two odd sizes are as near, the larger."""
        cls._check(cls._finite('gamma', gamma) > 0, 'gamma', 'positive', gamma)
        size = abs((math.log2(channels) + cls._finite('b', b)) / gamma)
        # Taps beyond the channels would only see the padding.
        largest = 2 * channels + 1
        rule = f'such that kernel_size is at most {largest} with b={b!r}'
        cls._check(size < largest + 1, 'gamma', rule, gamma)
        return int(size) | 1

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        y = self.conv(mean(x, 2, 3).unsqueeze(1))
        return y.sigmoid().transpose(1, 2).unsqueeze(-1)
