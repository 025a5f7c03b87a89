"""Polarized Self-Attention: Towards High-quality Pixel-wise Regression.

2021, https://arxiv.org/abs/2107.00782
"""

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision, without_autocast
from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


class _Polarized(Gate):
    """The parts of both forms: queries and values of half the channels."""

    def __init__(
        self, in_channels: int, least: int, identity_init: bool
    ) -> None:
        super().__init__(in_channels, identity_init)
        rule = f'at least {least}'
        self._check(in_channels >= least, 'in_channels', rule, in_channels)
        half = in_channels // 2
        self.conv_q_right = nn.Conv2d(in_channels, 1, 1, bias=False)
        self.conv_v_right = nn.Conv2d(in_channels, half, 1, bias=False)
        self.conv_q_left = nn.Conv2d(in_channels, half, 1, bias=False)
        self.conv_v_left = nn.Conv2d(in_channels, half, 1, bias=False)

    def init_weights(self) -> None:
        super().init_weights()
        for name, layer in self.named_children():
            if name != 'conv_up':
                nn.init.kaiming_normal_(layer.weight)

    def _context(self, x: Tensor) -> Tensor:
        """The sum of the values under the query's softmax: `(N, C', 1, 1)`."""
        mask = self.conv_q_right(x).flatten(2).softmax(2).to(x.dtype)
        # The convolution is linear: it may follow the sum over the positions.
        context = x.flatten(2) @ mask.transpose(1, 2)
        return self.conv_v_right(context.unsqueeze(3))

    def _query(self, x: Tensor) -> Tensor:
        """The mean query of the spatial gate: `(N, 1, C')`."""
        query = self.conv_q_left(mean(x, 2, 3, keep=True))
        return query.flatten(2).transpose(1, 2)


@MODELS.register_module()
class PolarizedParallel(_Polarized):
    r"""Polarized self-attention, parallel: x (σ(W z) + σ(softmax(u · v))).

    $$
    \begin{aligned}
    y &= x \cdot (\sigma(W z) + \sigma(\mathrm{softmax}_{HW}(u \cdot v))) \\
    z &= \sum_j \mathrm{softmax}_j(w_q \cdot x_j)\,W_v x_j, \quad
    u = \mathrm{GAP}(V_q x), \quad v = V_v x
    \end{aligned}
    $$

    $j$ runs over the $HW$ positions. $w_q$ leads to one channel, $W_v$, $V_q$
    and $V_v$ lead to $C / 2$ channels, and $W$ leads back. Nothing has a
    bias. Input, output and gate are `(N, C, H, W)`. The spatial part of the
    gate lies between 0.5 and 0.73, and close to 0.5 on a large map.

    Args:
        in_channels: The number of channels $C$, at least 2.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is no integer from 2 on.

    Placement:
        The authors have the sequential form only, in HRNet's basic blocks
        behind the first convolution and its ReLU. The config puts it behind
        the 3x3 convolution: `position='after_conv2'` in all stages. Behind
        the last convolution it would add 40 M parameters.

    Evidence:
        No detection result was collected, and none was measured here. The
        paper is about key points and segmentation.

    Source:
        Follows the authors' code (DeLightCMU/PSA) and keeps its key names.
        There the softmax comes behind the product. The paper has a softmax
        of $u$ over its channels instead, and so have popular copies, which
        also have biases and a LayerNorm. A convolution there that meets a
        mean or a weighted sum of positions stands behind it here. The result
        is the same, with 3 instead of 385 multiplications for each value of
        a map of 256 channels.
    """

    _abbr_ = 'polarizedparallel'

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels, 2, identity_init)
        self.conv_up = nn.Conv2d(in_channels // 2, in_channels, 1, bias=False)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        channel = self.conv_up(self._context(x)).sigmoid()
        key = self._query(x) @ self.conv_v_left.weight.flatten(1)
        with without_autocast(x):
            logits = full_precision(key) @ full_precision(x).flatten(2)
        spatial = logits.softmax(2).sigmoid().unflatten(2, x.shape[2:])
        return channel + spatial.to(channel.dtype)


@MODELS.register_module()
class PolarizedSequential(_Polarized):
    r"""Polarized self-attention, sequential: x σ(MLP(z)) σ(u · softmax(v)).

    $$
    \begin{aligned}
    x' &= x \cdot \sigma(W_2\,\mathrm{ReLU}(\mathrm{LN}(W_1 z))), \quad
    z = \sum_j \mathrm{softmax}_j(w_q \cdot x_j)\,W_v x_j \\
    y &= x' \cdot \sigma(u \cdot \mathrm{softmax}_{HW}(v)), \quad
    u = \mathrm{GAP}(V_q x'), \quad v = V_v x'
    \end{aligned}
    $$

    $j$ runs over the $HW$ positions. $w_q$ leads to one channel, $W_v$, $V_q$
    and $V_v$ lead to $C / 2$ channels; these have no biases. $W_1$ leads to
    $C / 8$ channels and $W_2$ leads back to $C$. Each of the $C / 2$ channels
    of $v$ has a softmax of its own. Input, output and gate, the product of
    both sigmoids, are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$, at least 8.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is no integer from 8 on.

    Placement:
        The authors have it in HRNet's basic blocks, between the ReLU of the
        first convolution and the second convolution. The config puts it
        behind the 3x3 convolution of a bottleneck, which also stands before
        the last one: `position='after_conv2'` in all stages. Behind the last
        convolution it would add 34 M parameters.

    Evidence:
        No detection result was collected, and none was measured here. The
        paper is about key points and segmentation.

    Source:
        Follows the authors' code (DeLightCMU/PSA) and keeps its key names.
        There the softmax over the positions comes before the product. The
        paper has a softmax of $u$ over its channels instead, and so have
        popular copies, which also have biases in all convolutions. HRNet's
        own initialisation, N(0, 0.001²), is left to the host.
    """

    _abbr_ = 'polarizedsequential'

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels, 8, identity_init)
        hidden = in_channels // 2 // 4
        self.conv_up = nn.Sequential(
            nn.Conv2d(in_channels // 2, hidden, 1),
            nn.LayerNorm([hidden, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, in_channels, 1),
        )
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        channel = self.conv_up(self._context(x)).sigmoid()
        y = x * channel.to(x.dtype)
        value = self.conv_v_left(y).flatten(2).softmax(2)
        query = self._query(y).to(value.dtype)
        with without_autocast(x):
            spatial = query @ value
        spatial = spatial.sigmoid().unflatten(2, x.shape[2:])
        return channel * spatial.to(channel.dtype)
