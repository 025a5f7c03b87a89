"""GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond.

ICCV Workshops 2019, https://arxiv.org/abs/1904.11492
"""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Attention, zero_biases, zero_weight
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class GC(Attention):
    r"""Global context block: x + W2 relu(LN(W1 Σ softmax(wx) x)).

    $$
    y = x + W_2\,\mathrm{ReLU}(\mathrm{LN}(W_1 c)), \quad
    c = \sum_j \mathrm{softmax}_j(w \cdot x_j)\,x_j
    $$

    $j$ runs over the $HW$ positions. $W_1$ leads from $C$ to $C / r$ channels
    and $W_2$ leads back. Input and output are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$. At least one hidden channel is kept.
        pooling: `'att'` is the formula above; with `'avg'`, $c$ is the mean.
        fusion: `('add',)` is the formula above. With `'mul'`, a second branch
            of the same form gives $x \cdot \sigma(\ldots)$, before the sum if
            both are there.

    Raises:
        InputError: A size is not positive, or a name is unknown.

    Placement:
        The paper's c3-c5 rows have it in every block of stages 2, 3 and 4,
        between the last batch norm and the addition:
        `position='after_conv3'`, `stages=(False, True, True, True)`.

    Evidence:
        The ECA-Net paper reports +2.2 box AP for Mask R-CNN with ResNet-50 on
        COCO (Table 5). This figure is GCNet's with SyncBN; with frozen batch
        norm, as the other rows, GCNet's gain is +1.3. GC starts from plain
        weights. Not measured here.

    Source:
        Follows the authors' code (xvjiarui/GCNet) and keeps its key names.
        The last convolution of a branch starts at zero. With `('add',)` the
        block starts as the identity. With `'mul'` it cannot: it starts as
        x / 2.
    """

    _abbr_ = 'gc'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        pooling: str = 'att',
        fusion: Sequence[str] = ('add',),
    ) -> None:
        super().__init__(in_channels)
        hidden = self._hidden(in_channels, reduction)
        self._one_of('pooling', pooling, ('att', 'avg'))
        named = set() if isinstance(fusion, str) else set(fusion)
        self._check(
            set() < named <= {'add', 'mul'},
            'fusion',
            "('add',), ('mul',) or both",
            fusion,
        )

        def branch() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(in_channels, hidden, 1),
                nn.LayerNorm([hidden, 1, 1]),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, in_channels, 1),
            )

        attends = pooling == 'att'
        self.conv_mask = nn.Conv2d(in_channels, 1, 1) if attends else None
        self.channel_mul_conv = branch() if 'mul' in fusion else None
        self.channel_add_conv = branch() if 'add' in fusion else None
        self.init_weights()

    @property
    def starts_as_identity(self) -> bool:
        return self.channel_mul_conv is None

    def init_weights(self) -> None:
        super().init_weights()
        if self.conv_mask is not None:
            nn.init.kaiming_normal_(self.conv_mask.weight)
            zero_biases(self.conv_mask)
        for branch in (self.channel_mul_conv, self.channel_add_conv):
            if branch is not None:
                zero_weight(branch[3])
                zero_biases(branch[3])

    def _context(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to $c$, `(N, C, 1, 1)`."""
        if self.conv_mask is None:
            return mean(x, 2, 3, keep=True)
        mask = self.conv_mask(x).flatten(2).softmax(2)
        context = x.flatten(2) @ mask.to(x.dtype).transpose(1, 2)
        return context.unsqueeze(3)

    def forward(self, x: Tensor) -> Tensor:
        context = self._context(x)
        y = x
        if self.channel_mul_conv is not None:
            y = y * self.channel_mul_conv(context).sigmoid().to(x.dtype)
        if self.channel_add_conv is not None:
            y = y + self.channel_add_conv(context).to(x.dtype)
        return y
