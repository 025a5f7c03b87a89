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
    r"""Efficient channel attention.

    .. math:: y = x \cdot \sigma(\mathrm{C1D}_k(\mathrm{GAP}(x)))

    GAP is the mean over H and W; C1D a convolution along the channels with
    zero padding, no bias, and k weights in all. Input and output are
    ``(N, C, H, W)``, the gate is ``(N, C, 1, 1)``.

    Args:
        in_channels: C.
        kernel_size: k, odd. None takes the paper's adaptive size
            :math:`k = |(\log_2 C + b) / \gamma|_{odd}`: 3 for 64 channels, 5
            for 128 to 1024, 7 for 2048. The authors' released ResNet-50 has
            3, 5, 5, 7 in its four stages instead of the formula's 5, 5, 5, 7.
        gamma: :math:`\gamma` of the adaptive size.
        b: b of the adaptive size.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: A size is not positive, or ``kernel_size`` is even.

    Written from the paper's equations 9 and 12; the released code
    (BangguWu/ECANet) computes the same.
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
        cls._check(gamma > 0, 'gamma', 'positive', gamma)
        size = int(abs((math.log2(channels) + b) / gamma))
        return size if size % 2 else size + 1

    def gate(self, x: Tensor) -> Tensor:
        y = self.conv(mean(x, 2, 3).unsqueeze(1))
        return y.sigmoid().transpose(1, 2).unsqueeze(-1)
