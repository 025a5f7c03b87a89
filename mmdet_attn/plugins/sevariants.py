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
        self.conv = nn.Conv2d(
            in_channels,
            in_channels,
            1,
            groups=self._groups or in_channels // step,
            bias=False,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """As the ECA authors' training script does: N(0, 2 / C)."""
        super().init_weights()
        nn.init.normal_(self.conv.weight, std=(2 / self.in_channels) ** 0.5)

    def gate(self, x: Tensor) -> Tensor:
        return self.conv(mean(x, 2, 3, keep=True)).sigmoid()


@MODELS.register_module()
class SEVar1(Gate):
    r"""SE-Var1: the squeeze alone, without a parameter.

    .. math:: y = x \cdot \sigma(\mathrm{GAP}(x))

    GAP is the mean over H and W. Input and output are ``(N, C, H, W)``, the
    gate is ``(N, C, 1, 1)``.

    Args:
        in_channels: C.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` is not positive.

    Written from the paper's equation 3; no code was released.
    """

    _abbr_ = 'sevar1'

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels, identity_init)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        return mean(x, 2, 3, keep=True).sigmoid()


@MODELS.register_module()
class SEVar2(_GroupedSE):
    r"""SE-Var2: one weight for each channel, C in all.

    .. math:: y = x \cdot \sigma(w \odot \mathrm{GAP}(x))

    GAP is the mean over H and W. Input and output are ``(N, C, H, W)``, the
    gate is ``(N, C, 1, 1)``.

    Args:
        in_channels: C.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` is not positive.

    Written from the paper's equation 4; no code was released.
    """

    _abbr_ = 'sevar2'
    _width = 1


@MODELS.register_module()
class SEVar3(_GroupedSE):
    r"""SE-Var3: one full layer, C x C weights, without reduction.

    .. math:: y = x \cdot \sigma(W\,\mathrm{GAP}(x))

    GAP is the mean over H and W. Input and output are ``(N, C, H, W)``, the
    gate is ``(N, C, 1, 1)``.

    Args:
        in_channels: C.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` is not positive.

    Written from the paper's equation 4; no code was released.
    """

    _abbr_ = 'sevar3'
    _groups = 1


@MODELS.register_module()
class SEGC1(_GroupedSE):
    r"""SE-GC1: 16 groups, C x C / 16 weights.

    .. math:: y = x \cdot \sigma(\mathrm{GC}_{16}(\mathrm{GAP}(x)))

    GAP is the mean over H and W, GC a block-diagonal matrix of that many
    blocks. Input and output are ``(N, C, H, W)``, the gate ``(N, C, 1, 1)``.

    Args:
        in_channels: C, a multiple of 16.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` is not a multiple of 16.

    Written from the paper's equation 5; no code was released.
    """

    _abbr_ = 'segc1'
    _groups = 16


@MODELS.register_module()
class SEGC2(_GroupedSE):
    r"""SE-GC2: C / 16 groups of 16 channels, 16 C weights.

    .. math:: y = x \cdot \sigma(\mathrm{GC}_{C/16}(\mathrm{GAP}(x)))

    GAP is the mean over H and W, GC a block-diagonal matrix of that many
    blocks. Input and output are ``(N, C, H, W)``, the gate ``(N, C, 1, 1)``.

    Args:
        in_channels: C, a multiple of 16.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` is not a multiple of 16.

    Written from the paper's equation 5; no code was released.
    """

    _abbr_ = 'segc2'
    _width = 16


@MODELS.register_module()
class SEGC3(_GroupedSE):
    r"""SE-GC3: C / 8 groups of 8 channels, 8 C weights.

    .. math:: y = x \cdot \sigma(\mathrm{GC}_{C/8}(\mathrm{GAP}(x)))

    GAP is the mean over H and W, GC a block-diagonal matrix of that many
    blocks. Input and output are ``(N, C, H, W)``, the gate ``(N, C, 1, 1)``.

    Args:
        in_channels: C, a multiple of 8.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` is not a multiple of 8.

    Written from the paper's equation 5; no code was released.
    """

    _abbr_ = 'segc3'
    _width = 8
