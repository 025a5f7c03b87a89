"""CenterMask: Real-Time Anchor-Free Instance Segmentation.

CVPR 2020, https://arxiv.org/abs/1911.06667
"""

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class ESE(Gate):
    r"""Effective squeeze and excitation: x hard-σ(W mean x + b).

    $$
    y = x \cdot \frac{\mathrm{ReLU6}(W\,\mathrm{GAP}(x) + b + 3)}{6}
    $$

    $\mathrm{GAP}$ is the mean over height and width. $W$ is one 1x1
    convolution from $C$ to $C$ channels, without a reduction. Below -3 and
    above 3 the gate is flat, and has no gradient there. Input and output are
    `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive.

    Placement:
        The paper puts it into VoVNetV2, at the end of every OSA module,
        behind its last convolution and in front of the addition. The configs
        put it into a ResNet where the channels are few:
        `position='after_conv2'` in all stages. At `after_conv3` it adds 20
        million parameters.

    Evidence:
        The paper trains detectors with it, but on VoVNets only; its figures
        were not collected. Not measured here.

    Source:
        Follows the authors' code (youngwanLEE/CenterMask), which ignores its
        argument `reduction`. The weights start as in their
        vovnet-detectron2, the biases as torch starts them.
        timm's `EffectiveSEModule` computes the same.
    """

    _abbr_ = 'ese'

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels, identity_init)
        self.fc = nn.Conv2d(in_channels, in_channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.kaiming_normal_(self.fc.weight)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        return F.hardsigmoid(self.fc(mean(x, 2, 3, keep=True)))
