"""CAM, the channel attention of: Dual Attention Network for Scene
Segmentation.

CVPR 2019, https://arxiv.org/abs/1809.02983
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision, without_autocast
from mmdet_attn.plugins.base import Attention
from mmdet_attn.plugins.gram import gram


@MODELS.register_module()
class CAM(Attention):
    r"""Channel attention module of DANet.

    .. math:: y = x + \gamma\, \mathrm{softmax}_d(-E)\, x, \quad
        E_{cd} = \sum_i x_{ci} x_{di}

    i runs over the H W positions, c and d over the C channels. Input and
    output are ``(N, C, H, W)``.

    Args:
        in_channels: C.

    Raises:
        ValueError: ``in_channels`` is not positive.

    Follows the authors' code (junfu1115/DANet), which prefers channels that
    differ: its softmax of ``max(E) - E`` is that of ``-E``. E is a sum, so it
    grows with H W; it is computed in float32 at least. :math:`\gamma` starts
    at zero, the module as the identity.
    """

    _abbr_ = 'cam'

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.zeros_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            flat = x.flatten(2)
            wide = full_precision(flat)
            weights = (self.gamma * (-gram(wide)).softmax(2)).to(x.dtype)
            return x + (weights @ flat).view_as(x)
