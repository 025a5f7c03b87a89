"""SA-Net: Shuffle Attention for Deep Convolutional Neural Networks.

ICASSP 2021, https://arxiv.org/abs/2102.00240
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class ShuffleAttention(Gate):
    r"""Shuffle attention: shuffle([u σ(w mean u + b), v σ(w IN(v) + b)]).

    $$
    y = \mathrm{shuffle}([u', v']), \quad
    u' = u \cdot \sigma(w_c\,\mathrm{GAP}(u) + b_c), \quad
    v' = v \cdot \sigma(w_s\,\mathrm{IN}(v) + b_s)
    $$

    The $C$ channels come in $G$ groups of neighbours. Each group is cut into
    halves $u$ and $v$ of $k = C / 2G$ channels. $\mathrm{GAP}$ is the mean
    over height and width, $\mathrm{IN}$ the instance norm with a scale and a
    shift. All parameters have $k$ elements and are shared by the groups. The
    shuffle is over all channels: output $2i$ is channel $i$, output $2i + 1$
    is channel $C / 2 + i$. Input, output and gate are `(N, C, H, W)`.

    With `identity_init` the blend is between the input and the shuffled
    output, because a shuffle is no product: $x + \alpha (y - x)$.

    Args:
        in_channels: The number of channels $C$.
        groups: The number of groups $G$; $2G$ must divide $C$.
        identity_init: Start as the identity.

    Raises:
        InputError: A size is not positive, or $2G$ does not divide $C$.

    Placement:
        The authors put it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages, with 64 groups
        in each. Their author advises 32 or 16 groups in narrow networks; 64
        need 128 channels.

    Evidence:
        The authors trained detectors, but their figures were not collected.
        In their issue 4 users report gains for RetinaNet and losses for
        YOLO. Not measured here.

    Source:
        Follows the authors' code (wofmanaf/SA-Net). As there, the weights
        start at 0 and the shifts at 1, so a fresh gate is 0.73 everywhere.
        That code takes 192 channels in 64 groups and computes something
        else; it is refused here. Copies on the web have 8 groups.
    """

    _abbr_ = 'shuffleattention'

    def __init__(
        self,
        in_channels: int,
        groups: int = 64,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.groups = self._positive('groups', groups)
        rule = f'such that 2 x groups divides {in_channels} channels'
        self._check(in_channels % (2 * groups) == 0, 'groups', rule, groups)
        k = in_channels // (2 * groups)
        self.cweight = nn.Parameter(torch.empty(1, k, 1, 1))
        self.cbias = nn.Parameter(torch.empty(1, k, 1, 1))
        self.sweight = nn.Parameter(torch.empty(1, k, 1, 1))
        self.sbias = nn.Parameter(torch.empty(1, k, 1, 1))
        self.gn = nn.GroupNorm(k, k)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for weight in (self.cweight, self.sweight):
            nn.init.zeros_(weight)
        for bias in (self.cbias, self.sbias):
            nn.init.ones_(bias)

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`, in the order of `x`."""
        k = self.gn.num_groups
        # The groups become a batch, which shares the parameters.
        u, v = x.reshape(-1, 2 * k, *x.shape[2:]).chunk(2, 1)
        u = (self.cweight * mean(u, 2, 3, keep=True) + self.cbias).sigmoid()
        # The layer itself refuses a map of one pixel.
        v = torch.group_norm(v, k, self.gn.weight, self.gn.bias, self.gn.eps)
        v = (self.sweight * v + self.sbias).sigmoid()
        return torch.cat([u.expand_as(v), v], 1).reshape(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to a map of the same shape."""
        y = x * self.gate(x).to(x.dtype)
        return self._blend(x, F.channel_shuffle(y, 2))
