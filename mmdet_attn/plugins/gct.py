"""Gated Channel Transformation for Visual Recognition.

CVPR 2020, https://arxiv.org/abs/1909.11519
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision
from mmdet_attn.plugins.base import Attention


@MODELS.register_module()
class GCT(Attention):
    r"""Gated channel transformation: x (1 + tanh(γ norm(α |x|) + β)).

    $$
    y = x \cdot (1 + \tanh(\gamma\,\hat{e} + \beta)), \quad
    \hat{e}_c = \frac{e_c}{\sqrt{\mathrm{mean}_d\,e_d^2 + \epsilon}}, \quad
    e_c = \alpha_c \sqrt{\textstyle\sum_i x_{ci}^2 + \epsilon}
    $$

    This is mode `'l2'`. $i$ runs over the $HW$ positions, $c$ and $d$ run
    over the $C$ channels, and $\epsilon$ is 1e-5. In mode `'l1'`,
    $e_c = \alpha_c \sum_i |x_{ci}|$ and
    $\hat{e}_c = e_c / (\mathrm{mean}_d |e_d| + \epsilon)$. $\alpha$, $\gamma$
    and $\beta$ have one value for each channel. Input and output are
    `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        mode: `'l2'` or `'l1'`.

    Raises:
        InputError: `in_channels` is not positive, or `mode` is unknown.

    Placement:
        The authors put it before every convolution of a ResNet: the stem, the
        three of each block, and those of the shortcuts. The config does that
        with `mmdet_attn.insert` and `place='before'`, 53 times in a
        ResNet-50. Its `attention_decay` trains $\beta$ without weight decay,
        as the authors do.

    Evidence:
        The authors report 39.8 box AP and 36.0 mask AP for Mask R-CNN with
        ResNet-50 on COCO, and 37.8 and 34.2 without GCT; 42.0 and 37.7 with
        ResNet-101, and 40.1 and 36.1 without. Not measured here.

    Source:
        Follows the authors' code (z-x-yang/GCT). $\alpha$ starts at one,
        $\gamma$ and $\beta$ start at zero, and the module as the identity.
        Their switch `after_relu` leaves out the absolute value of `'l1'`,
        which changes nothing behind a ReLU. Computed in float32 at least.
        GCT is also short for the Gaussian Context Transformer of CVPR 2021,
        which is another module.
    """

    _abbr_ = 'gct'

    def __init__(self, in_channels: int, mode: str = 'l2') -> None:
        super().__init__(in_channels)
        self.mode = self._one_of('mode', mode, ('l2', 'l1'))
        shape = (1, in_channels, 1, 1)
        self.alpha = nn.Parameter(torch.ones(shape))
        self.gamma = nn.Parameter(torch.zeros(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.ones_(self.alpha)
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to a map of the same shape."""
        wide = full_precision(x)
        if self.mode == 'l2':
            sums = wide.square().sum((2, 3), True)
            e = self.alpha * (sums + 1e-5).sqrt()
            norm = (e.square().mean(1, True) + 1e-5).sqrt()
        else:
            e = self.alpha * wide.abs().sum((2, 3), True)
            norm = e.abs().mean(1, True) + 1e-5
        return x * (1 + (self.gamma * e / norm + self.beta).tanh()).to(x.dtype)
