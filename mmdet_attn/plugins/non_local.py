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
from mmdet_attn.plugins.blockwise import blockwise_attention
from mmdet_attn.plugins.norm import build_norm

MODES = ('embedded_gaussian', 'gaussian', 'dot_product', 'concatenation')


@MODELS.register_module()
class NonLocal(Attention):
    r"""Non-local block: x + W Σ softmax(θᵀφ) g.

    $$
    y_i = x_i + W_z \frac{1}{\mathcal{C}(x)} \sum_j f(x_i, x_j)\,g(x_j)
    $$

    $i$ and $j$ run over the $HW$ positions. $\theta$, $\phi$ and $g$ are 1x1
    convolutions from $C$ to $C / r$ channels, and $W_z$ leads back. Input and
    output are `(N, C, H, W)`. Memory grows with $HW$, not with its square.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$. At least one inner channel is kept.
        mode: The function $f$. `'embedded_gaussian'` is
            $e^{\theta(x_i) \cdot \phi(x_j)}$ and `'gaussian'` is
            $e^{x_i \cdot x_j}$, both divided by their sum over $j$.
            `'dot_product'` is $\theta(x_i) \cdot \phi(x_j)$ and
            `'concatenation'` is
            $\mathrm{ReLU}(w \cdot [\theta(x_i), \phi(x_j)])$, both divided by
            the number of positions $j$.
        use_scale: Divide the exponent of `'embedded_gaussian'` by the root of
            the inner channels, as the authors' code; not in the paper.
        sub_sample: Halve height and width by max pooling before $\phi$ and
            $g$.
        norm_cfg: A norm after $W_z$ (BN, SyncBN or GN) in the place of its
            bias, or None.

    Raises:
        InputError: A size is not positive, or the mode or norm is unknown.

    Placement:
        The paper's COCO models have one block, before the last block of stage
        3: `position='after_block'`, `blocks=(-2,)`.

    Evidence:
        The ECA-Net paper reports +0.8 box AP for Mask R-CNN with ResNet-50
        and one block on COCO (Table 5), from plain weights. Not measured
        here.

    Source:
        Follows the authors' code (facebookresearch/video-nonlocal-net), which
        pools first; mmcv's `NonLocal2d` pools after the convolutions. It
        starts as the identity: the scale of the norm is zero, or $W_z$ if
        there is no norm.
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
            flat = source.flatten(2)
            y = blockwise_attention(x.flatten(2), flat, flat)
            y = self.g(y.unflatten(2, x.shape[2:]))
        else:
            theta = self.theta(x).flatten(2)
            phi, g = self.phi(source).flatten(2), self.g(source).flatten(2)
            if self.mode == 'embedded_gaussian':
                y = blockwise_attention(theta, phi, g, self.scale)
            else:
                with without_autocast(x):
                    y = self._sums(*map(full_precision, (theta, phi, g)))
            y = y.to(g.dtype).unflatten(2, x.shape[2:])
        return x + self.norm(self.out(y)).to(x.dtype)

    def _sums(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """The modes without softmax: `(N, C / r, positions)`, each."""
        if self.mode == 'dot_product':
            # The small product first: g phi is C/r x C/r.
            return g @ phi.transpose(1, 2) / g.shape[2] @ theta
        return self._concatenation(theta, phi, g)

    def _concatenation(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Sums of ReLU(a_i + b_j) g_j, from sums over the sorted b.

        Only positions with b_j > -a_i count. In ascending order of b they
        are the last ones, whose sums a reversed cumulative sum has ready.
        """
        weight = self.concat.weight[0].to(g.dtype).chunk(2)
        a, b = weight[0] @ theta, weight[1] @ phi
        b, order = b.sort(1)
        g = g.gather(2, order.unsqueeze(1).expand_as(g))
        terms = torch.stack([g, b.unsqueeze(1) * g])
        sums = F.pad(terms.flip(3).cumsum(3).flip(3), (0, 1))
        first = torch.searchsorted(b.detach(), -a.detach(), right=True)
        first = first.unsqueeze(1).expand(-1, g.shape[1], -1)
        plain, weighted = (part.gather(2, first) for part in sums)
        return (a.unsqueeze(1) * plain + weighted) / g.shape[2]
