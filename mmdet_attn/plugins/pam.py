"""PAM, the position attention of: Dual Attention Network for Scene
Segmentation.

CVPR 2019, https://arxiv.org/abs/1809.02983
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Attention

# The widest head that the fused kernels of GPUs take.
MAX_WIDTH = 256


@MODELS.register_module()
class PAM(Attention):
    r"""Position attention module of DANet.

    .. math:: y_i = x_i + \gamma \sum_j
        \mathrm{softmax}_j(q_i \cdot k_j)\, v_j

    i and j run over the H W positions; query and key are 1x1 convolutions to
    C/8 channels, the value one to C. Input and output are ``(N, C, H, W)``;
    memory grows with H W, not with its square.

    Args:
        in_channels: C.

    Raises:
        ValueError: ``in_channels`` is not positive.

    Follows the authors' code (junfu1115/DANet): the product is not scaled,
    and :math:`\gamma` starts at zero, the module as the identity.
    """

    _abbr_ = 'pam'

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        inner = self._hidden(in_channels, 8)
        self.query_conv = nn.Conv2d(in_channels, inner, 1)
        self.key_conv = nn.Conv2d(in_channels, inner, 1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.zeros_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        # The kernels that build no H W x H W matrix want query, key and value
        # of one width: the value in heads, zeros behind query and key.
        heads = -(-self.in_channels // MAX_WIDTH)
        width = -(-self.in_channels // heads)
        value = self.value_conv(x)
        value = F.pad(value, (0, 0, 0, 0, 0, heads * width - value.shape[1]))
        value = value.view(-1, heads, width, x.shape[2] * x.shape[3])
        out = F.scaled_dot_product_attention(
            self._padded(self.query_conv(x), heads, width),
            self._padded(self.key_conv(x), heads, width),
            value.transpose(2, 3).contiguous(),
            scale=1.0,
        )
        out = out.transpose(2, 3).flatten(1, 2)[:, : self.in_channels]
        return x + (self.gamma * out).to(x.dtype).view_as(x)

    @staticmethod
    def _padded(x: Tensor, heads: int, width: int) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = F.pad(tokens, (0, width - tokens.shape[2]))
        return tokens.contiguous().unsqueeze(1).expand(-1, heads, -1, -1)
