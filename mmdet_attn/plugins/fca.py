"""FcaNet: Frequency Channel Attention Networks.

ICCV 2021, https://arxiv.org/abs/2012.11879
"""

import math
from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Gate

# Frequencies, along H and along W, on a grid of 7 x 7: in the authors' order
# of the accuracy that each reaches alone, and from the lowest up.
RANKED = (
    '00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 46 63 33 53 55 21 61 52 '
    '54 32 31 41 23 20 65 13 64 51 25 62 42 15 56 45 44 24 11 43 26 36 34 14 '
    '66'
)
LOWEST = (
    '00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 14 23 32 41 50 06 15 24 '
    '33 42 51 60 16 25 34 43'
)
COUNTS = (1, 2, 4, 8, 16, 32)
# The authors' choice for the four stages of ResNet-50.
DCT_SIZES = {256: 56, 512: 28, 1024: 14, 2048: 7}


@MODELS.register_module()
class FCA(Gate):
    r"""Frequency channel attention: as SE, on DCT coefficients.

    $$
    y = x \cdot \sigma(W_2\,\mathrm{ReLU}(W_1 z)), \quad
    z_c = \sum_{h,w} B_{u_c}(h)\,B_{v_c}(w)\,\mathrm{pool}(x)_{chw}
    $$

    $\mathrm{pool}$ averages to $P \times P$ cells. The channels come in equal
    groups, each with a frequency $(u, v)$ of the discrete cosine transform
    $B_f(t) = \cos(\pi f (t + 1/2) / P) / \sqrt{P}$, times $\sqrt{2}$ for
    $f > 0$. $W_1$ and $W_2$ have no biases. Input and output are
    `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$, a multiple of the number of
            frequencies.
        reduction: The reduction $r$ of $W_1$. At least one hidden channel is
            kept.
        dct_size: The number of cells $P$ along a side, at least 7. None takes
            the authors' 56, 28, 14, 7 for 256, 512, 1024, 2048 channels, and
            7 for others.
        frequencies: `'top'`, `'low'` or `'bot'` and 1, 2, 4, 8, 16 or 32, as
            in `'top16'`. Or pairs $(u, v)$ from 0 to 6, which stand for
            multiples of `P // 7`.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: An argument is none of the above.

    Placement:
        The paper puts it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages.

    Evidence:
        The authors trained detectors with their own fork of MMDetection, but
        their figures were not collected. Not measured here.

    Source:
        Follows the authors' code (cfzd/FcaNet). Pooling and transform are
        both linear, so they are one product along the width and one along
        the height. The gradient of adaptive pooling is not deterministic on a
        GPU, and ONNX does not have it for every size.
    """

    _abbr_ = 'fca'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        dct_size: int | None = None,
        frequencies: str | Sequence[tuple[int, int]] = 'top16',
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        hidden = self._hidden(in_channels, reduction)
        if dct_size is None:
            dct_size = DCT_SIZES.get(in_channels, 7)
        good = self._positive('dct_size', dct_size) >= 7
        self._check(good, 'dct_size', 'at least 7', dct_size)
        pairs = self._pairs(frequencies)
        self._check(
            in_channels % len(pairs) == 0,
            'in_channels',
            f'a multiple of its {len(pairs)} frequencies',
            in_channels,
        )
        self.dct_size = dct_size
        # Not in checkpoints: the arguments decide them.
        for name, numbers in zip('uv', torch.tensor(pairs).T, strict=True):
            basis = self._basis(numbers * (dct_size // 7))
            self.register_buffer(name, basis, persistent=False)
        self.fc1 = nn.Linear(in_channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, in_channels, bias=False)
        self.init_weights()

    def _pairs(
        self, frequencies: str | Sequence[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        if isinstance(frequencies, str):
            ranked = RANKED.split()
            order = dict(top=ranked, bot=ranked[::-1], low=LOWEST.split())
            names = [f'{kind}{n}' for kind in order for n in COUNTS]
            self._one_of('frequencies', frequencies, names)
            chosen = order[frequencies[:3]][: int(frequencies[3:])]
            return [(int(pair[0]), int(pair[1])) for pair in chosen]
        good = len(frequencies) > 0 and all(
            len(pair) == 2 and set(pair) <= set(range(7))
            for pair in frequencies
        )
        rule = "like 'top16', or pairs of integers from 0 to 6"
        self._check(good, 'frequencies', rule, frequencies)
        return [(u, v) for u, v in frequencies]

    def _basis(self, frequencies: Tensor) -> Tensor:
        """The cosines of F frequencies on P cells: `(F, P)`."""
        f = frequencies.double().unsqueeze(1)
        t = torch.arange(self.dct_size, dtype=torch.double) + 0.5
        cosine = torch.cos(math.pi * f * t / self.dct_size)
        scale = torch.where(f > 0, 2.0, 1.0) / self.dct_size
        return (cosine * scale.sqrt()).float()

    @staticmethod
    def _pooled(basis: Tensor, size: int) -> Tensor:
        """The basis on P cells as one on `size` pixels: `(F, size)`."""
        cells = basis.shape[1]
        if not torch.compiler.is_compiling():
            # Few kernels, but not every size has them in ONNX.
            pixels = torch.eye(size, dtype=basis.dtype, device=basis.device)
            return (
                basis @ F.adaptive_avg_pool2d(pixels[None], (cells, size))[0]
            )
        cell = torch.arange(cells, device=basis.device).unsqueeze(1)
        start, end = cell * size // cells, -(-(cell + 1) * size // cells)
        pixel = torch.arange(size, device=basis.device)
        inside = ((pixel >= start) & (pixel < end)).to(basis.dtype)
        return basis @ (inside / (end - start))

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        rows = self._pooled(self.u, x.shape[2]).to(x.dtype)
        columns = self._pooled(self.v, x.shape[3]).to(x.dtype)
        grouped = x.unflatten(1, (len(rows), -1))
        # (N, F, C/F, H, W) to (N, F, C/F, H) to (N, F, C/F, 1).
        z = grouped.flatten(2, 3) @ columns.unsqueeze(2)
        z = z.view(grouped.shape[:4]) @ rows.unsqueeze(2)
        hidden = self.fc1(z.flatten(1)).relu()
        return self.fc2(hidden).sigmoid()[:, :, None, None]
