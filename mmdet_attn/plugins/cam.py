"""CAM, the channel attention of: Dual Attention Network for Scene
Segmentation.

CVPR 2019, https://arxiv.org/abs/1809.02983
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision, without_autocast
from mmdet_attn.plugins.base import Attention


@MODELS.register_module()
class CAM(Attention):
    r"""Channel attention module: x + γ softmax(-xxᵀ) x.

    $$
    y = x + \gamma\,\mathrm{softmax}_d(-E)\,x, \quad
    E_{cd} = \sum_i x_{ci}\,x_{di}
    $$

    $i$ runs over the $HW$ positions, $c$ and $d$ run over the $C$ channels.
    Input and output are `(N, C, H, W)`.

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
        Follows the authors' code (junfu1115/DANet), which prefers channels
        that differ: its softmax of `max(E) - E` equals that of `-E`. $E$ is a
        sum, so it grows with $HW$; it is computed in float32 at least.
        $\gamma$ starts at zero, the module as the identity.
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
            energy = wide @ wide.transpose(1, 2)
            weights = (self.gamma * (-energy).softmax(2)).to(x.dtype)
            return x + (weights @ flat).view_as(x)
