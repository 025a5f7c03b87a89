"""The variants of Squeeze-and-Excitation that led to ECA.

ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks.
CVPR 2020, https://arxiv.org/abs/1910.03151 (Table 2)
"""

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


class _GroupedSE(Gate):
    """One linear layer per group of channels: W is block-diagonal."""

    _groups = 0  # how many, or else
    _width = 0  # the channels of each

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels, identity_init)
        step = self._groups or self._width
        good = in_channels % step == 0
        self._check(good, 'in_channels', f'a multiple of {step}', in_channels)
        groups = self._groups or in_channels // step
        self.conv = nn.Conv2d(
            in_channels, in_channels, 1, groups=groups, bias=False
        )
        self.init_weights()

    def init_weights(self) -> None:
        """As the ECA authors' training script does: N(0, 2 / C)."""
        super().init_weights()
        nn.init.normal_(self.conv.weight, std=(2 / self.in_channels) ** 0.5)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        return self.conv(mean(x, 2, 3, keep=True)).sigmoid()


@MODELS.register_module()
class SEVar1(Gate):
    r"""SE variant 1: x σ(mean x).

    $$
    y = x \cdot \sigma(\mathrm{GAP}(x))
    $$

    $\mathrm{GAP}$ is the mean over height and width. There is no
    parameter. Input and output are `(N, C, H, W)`, the gate is
    `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive.

    Placement:
        As SE: `position='after_conv3'` in all stages.

    Evidence:
        The paper has it on ImageNet only (Table 2): 76.00 top-1 with
        ResNet-50, where SE has 76.71 and the plain network 75.20. Not
        measured in detection.

    Source:
        Written from the paper's equation 3. No code was released.
    """

    _abbr_ = 'sevar1'

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels, identity_init)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        return mean(x, 2, 3, keep=True).sigmoid()


@MODELS.register_module()
class SEVar2(_GroupedSE):
    r"""SE variant 2: x σ(w · mean x).

    $$
    y = x \cdot \sigma(w \odot \mathrm{GAP}(x))
    $$

    $\mathrm{GAP}$ is the mean over height and width. $w$ has $C$ weights,
    one for each channel. Input and output are `(N, C, H, W)`, the gate is
    `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive.

    Placement:
        As SE: `position='after_conv3'` in all stages.

    Evidence:
        The paper has it on ImageNet only (Table 2): 77.07 top-1 with
        ResNet-50, where SE has 76.71 and the plain network 75.20. Not
        measured in detection.

    Source:
        Written from the paper's equation 4. No code was released.
    """

    _abbr_ = 'sevar2'
    _width = 1


@MODELS.register_module()
class SEVar3(_GroupedSE):
    r"""SE variant 3: x σ(W mean x).

    $$
    y = x \cdot \sigma(W\,\mathrm{GAP}(x))
    $$

    $\mathrm{GAP}$ is the mean over height and width. $W$ is a full $C
    \times C$ matrix. Input and output are `(N, C, H, W)`, the gate is `(N,
    C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive.

    Placement:
        As SE: `position='after_conv3'` in all stages.

    Evidence:
        The paper has it on ImageNet only (Table 2): 77.42 top-1 with
        ResNet-50, where SE has 76.71 and the plain network 75.20. Not
        measured in detection.

    Source:
        Written from the paper's equation 4. No code was released.
    """

    _abbr_ = 'sevar3'
    _groups = 1


@MODELS.register_module()
class SEGC1(_GroupedSE):
    r"""SE with group convolution 1: as SEVar3, W in 16 blocks.

    $$
    y = x \cdot \sigma(\mathrm{GC}_{16}(\mathrm{GAP}(x)))
    $$

    $\mathrm{GAP}$ is the mean over height and width. $\mathrm{GC}$ is a
    block-diagonal matrix with as many blocks as its index says. Input and
    output are `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$, a multiple of 16.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not a multiple of 16.

    Placement:
        As SE: `position='after_conv3'` in all stages.

    Evidence:
        The paper has it on ImageNet only (Table 2): 76.95 top-1 with
        ResNet-50, where SE has 76.71 and the plain network 75.20. Not
        measured in detection.

    Source:
        Written from the paper's equation 5. No code was released.
    """

    _abbr_ = 'segc1'
    _groups = 16


@MODELS.register_module()
class SEGC2(_GroupedSE):
    r"""SE with group convolution 2: as SEVar3, blocks of 16 channels.

    $$
    y = x \cdot \sigma(\mathrm{GC}_{C / 16}(\mathrm{GAP}(x)))
    $$

    $\mathrm{GAP}$ is the mean over height and width. $\mathrm{GC}$ is a
    block-diagonal matrix with as many blocks as its index says. Input and
    output are `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$, a multiple of 16.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not a multiple of 16.

    Placement:
        As SE: `position='after_conv3'` in all stages.

    Evidence:
        The paper has it on ImageNet only (Table 2): 76.98 top-1 with
        ResNet-50, where SE has 76.71 and the plain network 75.20. Not
        measured in detection.

    Source:
        Written from the paper's equation 5. No code was released.
    """

    _abbr_ = 'segc2'
    _width = 16


@MODELS.register_module()
class SEGC3(_GroupedSE):
    r"""SE with group convolution 3: as SEVar3, blocks of 8 channels.

    $$
    y = x \cdot \sigma(\mathrm{GC}_{C / 8}(\mathrm{GAP}(x)))
    $$

    $\mathrm{GAP}$ is the mean over height and width. $\mathrm{GC}$ is a
    block-diagonal matrix with as many blocks as its index says. Input and
    output are `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$, a multiple of 8.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not a multiple of 8.

    Placement:
        As SE: `position='after_conv3'` in all stages.

    Evidence:
        The paper has it on ImageNet only (Table 2): 76.96 top-1 with
        ResNet-50, where SE has 76.71 and the plain network 75.20. Not
        measured in detection.

    Source:
        Written from the paper's equation 5. No code was released.
    """

    _abbr_ = 'segc3'
    _width = 8
