"""ECA-NS: efficient channel attention whose weights are not shared.

ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks.
CVPR 2020, https://arxiv.org/abs/1910.03151 (Table 2)
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class ECANS(Gate):
    r"""Efficient channel attention, k weights of its own for each channel.

    .. math:: y = x \cdot \sigma(\omega), \quad
        \omega_c = \sum_{j=1}^{k} w_{cj}\,\mathrm{GAP}(x)_{c + j - (k+1)/2}

    GAP is the mean over H and W, zero outside the C channels. Input and
    output are ``(N, C, H, W)``, the gate is ``(N, C, 1, 1)``; the weights are
    ``(C, 1, k)``.

    Args:
        in_channels: C.
        kernel_size: k, odd; 3 in the paper's table.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: A size is not positive, or ``kernel_size`` is even.

    The window is centred on its channel, as in the authors' code
    (BangguWu/ECANet); the paper's equation 6 starts it there.
    """

    _abbr_ = 'ecans'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 3,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.kernel_size = self._odd('kernel_size', kernel_size)
        self.conv = nn.Conv1d(
            in_channels,
            in_channels,
            kernel_size,
            groups=in_channels,
            bias=False,
        )
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        padding = self.kernel_size // 2
        means = nn.functional.pad(mean(x, 2, 3), (padding, padding))
        weights = self.conv.weight.squeeze(1).unbind(1)
        # k shifted products: a C-fold grouped convolution would be slower.
        total = torch.zeros_like(means[:, : self.in_channels])
        for shift, weight in enumerate(weights):
            total = total + means[:, shift : shift + self.in_channels] * weight
        return total.sigmoid()[:, :, None, None]
