"""PAM, the position attention of: Dual Attention Network for Scene
Segmentation.

CVPR 2019, https://arxiv.org/abs/1809.02983
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Attention
from mmdet_attn.plugins.blockwise import attend


@MODELS.register_module()
class PAM(Attention):
    r"""Position attention module of DANet.

    .. math:: y_i = x_i + \gamma \sum_j
        \mathrm{softmax}_j(q_i \cdot k_j)\, v_j

    i and j run over the H W positions; query and key are 1x1 convolutions to
    C/8 channels, the value one to C. Input and output are ``(N, C, H, W)``;
    memory grows with H W, not with its square
    (under ``torch.compile`` see :func:`attend`).

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
        query, key = self.query_conv(x), self.key_conv(x)
        value = self.value_conv(x)
        out = attend(query.flatten(2), key.flatten(2), value.flatten(2))
        return x + (self.gamma * out).to(x.dtype).view_as(x)
