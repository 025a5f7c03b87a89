"""Non-local Neural Networks.

CVPR 2018, https://arxiv.org/abs/1711.07971

The word nonlocal is taken by Python, hence the file's name.
"""

from collections.abc import Mapping

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.amp import full_precision, without_autocast
from mmdet_attn.plugins.base import Attention, zero_biases, zero_weight
from mmdet_attn.plugins.norm import build_norm

MODES = ('embedded_gaussian', 'gaussian', 'dot_product', 'concatenation')


@MODELS.register_module()
class NonLocal(Attention):
    r"""Non-local block.

    .. math:: y_i = x_i + W_z \frac{1}{\mathcal{C}(x)}
        \sum_j f(x_i, x_j)\, g(x_j)

    i and j run over the H W positions; :math:`\theta, \phi` and g are 1x1
    convolutions from C to C/r channels, :math:`W_z` leads back. Input and
    output are ``(N, C, H, W)``; memory grows with H W, not with its square.

    Args:
        in_channels: C.
        reduction: r; at least one inner channel is kept.
        mode: ``'embedded_gaussian'``:
            :math:`f = e^{\theta(x_i) \cdot \phi(x_j)}`, ``'gaussian'``:
            :math:`f = e^{x_i \cdot x_j}`, both divided by their sum over j;
            ``'dot_product'``: :math:`f = \theta(x_i) \cdot \phi(x_j)`,
            ``'concatenation'``:
            :math:`f = \mathrm{ReLU}(w \cdot [\theta(x_i), \phi(x_j)])`, both
            divided by the number of positions j.
        use_scale: Divide the exponent of ``'embedded_gaussian'`` by the root
            of the inner channels (the authors' code; not in the paper).
        sub_sample: Halve height and width by max pooling before
            :math:`\phi` and g.
        norm_cfg: A norm after :math:`W_z` (BN, SyncBN or GN), in the place
            of its bias, or None.

    Raises:
        ValueError: A size is not positive or the mode unknown.

    Follows the authors' code (facebookresearch/video-nonlocal-net), which
    pools first; mmcv's ``NonLocal2d`` pools after the convolutions. It starts
    as the identity: the norm's scale is zero, or without one :math:`W_z`.
    """

    _abbr_ = 'non_local'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        mode: str = 'embedded_gaussian',
        use_scale: bool = True,
        sub_sample: bool = False,
        norm_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(in_channels)
        inner = self._hidden(in_channels, reduction)
        self.mode = self._one_of('mode', mode, MODES)
        self.scale = inner**-0.5 if use_scale else 1.0
        self.sub_sample = sub_sample
        self.g = nn.Conv2d(in_channels, inner, 1)
        if mode != 'gaussian':
            self.theta = nn.Conv2d(in_channels, inner, 1)
            self.phi = nn.Conv2d(in_channels, inner, 1)
        if mode == 'concatenation':
            self.concat = nn.Linear(2 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, in_channels, 1, bias=norm_cfg is None)
        self.norm = build_norm('NonLocal', norm_cfg, in_channels)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for layer in self.children():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
        zero_biases(self)
        without_norm = isinstance(self.norm, nn.Identity)
        zero_weight(self.out if without_norm else self.norm)

    def forward(self, x: Tensor) -> Tensor:
        source = x
        if self.sub_sample:
            source = F.max_pool2d(x, [min(2, side) for side in x.shape[2:]])
        if self.mode == 'gaussian':
            # The weights add up to one, so g may come after the sum.
            y = self.g(_grid(_attend(x, source, source, 1.0), x))
        else:
            theta, phi, g = self.theta(x), self.phi(source), self.g(source)
            if self.mode == 'embedded_gaussian':
                y = _attend(theta, phi, g, self.scale)
            else:
                with without_autocast(x):
                    y = self._sums(*map(full_precision, (theta, phi, g)))
            y = _grid(y.to(g.dtype), x)
        return x + self.norm(self.out(y)).to(x.dtype)

    def _sums(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """The modes without softmax."""
        theta, phi, g = _tokens(theta), _tokens(phi), _tokens(g)
        if self.mode == 'dot_product':
            # The small product first: phi g is C/r x C/r.
            return theta @ (phi.transpose(1, 2) @ g / g.shape[1])
        return self._concatenation(theta, phi, g)

    def _concatenation(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Sums of ReLU(a_i + b_j) g_j, from sums over the sorted b.

        Only positions with b_j > -a_i count; in ascending order of b they
        are the last ones, whose sums a reversed cumulative sum has ready.
        """
        weight = self.concat.weight[0].to(g.dtype).chunk(2)
        a, b = theta @ weight[0], phi @ weight[1]
        b, order = b.sort(1)
        g = g.gather(1, order.unsqueeze(2).expand_as(g))
        terms = torch.stack([g, b.unsqueeze(2) * g])
        sums = F.pad(terms.flip(2).cumsum(2).flip(2), (0, 0, 0, 1))
        first = torch.searchsorted(b.detach(), -a.detach(), right=True)
        first = first.unsqueeze(2).expand(-1, -1, g.shape[2])
        plain, weighted = (part.gather(1, first) for part in sums)
        return (a.unsqueeze(2) * plain + weighted) / g.shape[1]


def _tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H W, C), the last dimension contiguous."""
    return x.flatten(2).transpose(1, 2).contiguous()


def _grid(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, H W, C) as (N, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Softmax attention over positions, which builds no H W x H W matrix."""
    q, k, v = (_tokens(x).unsqueeze(1) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, scale=scale).squeeze(1)
