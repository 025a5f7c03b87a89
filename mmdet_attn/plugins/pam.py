"""PAM, the position attention of: Dual Attention Network for Scene
Segmentation.

CVPR 2019, https://arxiv.org/abs/1809.02983
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Attention
from mmdet_attn.plugins.blockwise import blockwise_attention


@MODELS.register_module()
class PAM(Attention):
    r"""Position attention module: x + γ Σ softmax(qᵀk) v.

    $$
    y_i = x_i + \gamma \sum_j \mathrm{softmax}_j(q_i \cdot k_j)\,v_j
    $$

    $i$ and $j$ run over the $HW$ positions. Query $q$ and key $k$ are 1x1
    convolutions to $C / 8$ channels, the value $v$ is one to $C$ channels.
    Input and output are `(N, C, H, W)`. Memory grows with $HW$, not with its
    square; under `torch.compile` it may.

    Args:
        in_channels: The number of channels $C$.

    Raises:
        InputError: `in_channels` is not positive.

    Placement:
        The paper puts it into the segmentation head, on the last stage. The
        config puts it at the end of that stage: `position='after_block'` of
        the last block of stage 4.

    Evidence:
        No detection result was collected, and none was measured here. The
        paper is about segmentation.

    Source:
        Follows the authors' code (junfu1115/DANet): the product is not
        scaled, and $\gamma$ starts at zero, the module as the identity. The
        matrix of all pairs of positions is computed in blocks.
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
        query = self.query_conv(x).flatten(2)
        key = self.key_conv(x).flatten(2)
        value = self.value_conv(x).flatten(2)
        out = blockwise_attention(query, key, value)
        return x + (self.gamma * out).to(x.dtype).view_as(x)
