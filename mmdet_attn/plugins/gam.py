"""Global Attention Mechanism: Retain Information to Enhance Channel-Spatial
Interactions.

2021, https://arxiv.org/abs/2112.05561
"""

from collections.abc import Mapping

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Attention, Gate
from mmdet_attn.plugins.norm import build_norm


class ChannelGate(Gate):
    """GAM's channel attention: a perceptron at each position."""

    def __init__(
        self, in_channels: int, hidden: int, sigmoid: bool, identity_init: bool
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.sigmoid = sigmoid
        self.fc1 = nn.Conv2d(in_channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, in_channels, 1)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        gate = self.fc2(self.fc1(x).relu())
        return gate.sigmoid() if self.sigmoid else gate


class SpatialGate(Gate):
    """GAM's spatial attention: two 7 x 7 convolutions."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        groups: int,
        shuffle: bool,
        norm_cfg: Mapping | None,
        identity_init: bool,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.shuffle = groups if shuffle else 1
        self.conv1 = nn.Conv2d(
            in_channels, hidden, 7, padding=3, groups=groups
        )
        self.norm1 = build_norm('GAM', norm_cfg, hidden)
        self.conv2 = nn.Conv2d(
            hidden, in_channels, 7, padding=3, groups=groups
        )
        self.norm2 = build_norm('GAM', norm_cfg, in_channels)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        hidden = self.norm1(self.conv1(x)).relu()
        if self.shuffle > 1:
            hidden = F.channel_shuffle(hidden, self.shuffle)
        return self.norm2(self.conv2(hidden)).sigmoid()


@MODELS.register_module()
class GAM(Attention):
    r"""Global attention mechanism: x σ(MLP(x)), then σ(conv7 relu conv7).

    $$
    \begin{aligned}
    x' &= x \cdot \sigma(W_2\,\mathrm{ReLU}(W_1 x)) \\
    y &= x' \cdot \sigma(\mathrm{BN}(f_2\,\mathrm{ReLU}(\mathrm{BN}(f_1 x'))))
    \end{aligned}
    $$

    A channel gate comes first, a spatial gate second. $W_1$ and $W_2$ act on
    the channels of each position, $f_1$ and $f_2$ are 7x7 convolutions. Both
    pairs lead from $C$ to $C / r$ channels and back. Input, output and both
    gates (`channel.gate`, `spatial.gate`) are `(N, C, H, W)`. It is by far
    the most expensive module here.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$. At least one hidden channel is kept. 16
            gives the paper's parameters; copies on the web have 4.
        groups: The groups of the 7x7 convolutions; the paper's ResNet-50 has
            4.
        shuffle: Whether the channels are shuffled between the two
            convolutions. Needs `groups` above 1.
        channel_sigmoid: False leaves out the first $\sigma$, as copies on the
            web do.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start both gates as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, the norm is unknown, or `groups`
            does not divide $C$ and $C / r$ or does not fit `shuffle`.

    Placement:
        The paper puts it behind every block: `position='after_block'` in all
        stages, with 4 groups and the shuffle. The configs use
        `AttentionResNet`, which has this position and lets the batch norm of
        fresh modules learn.

    Evidence:
        No detection result was collected, and none was measured here.

    Source:
        Written from the paper. The authors' code could not be found, so the
        place of the shuffle is our reading: between the convolutions, as in
        ShuffleNet.
    """

    _abbr_ = 'gam'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        groups: int = 1,
        shuffle: bool = False,
        channel_sigmoid: bool = True,
        norm_cfg: Mapping | None = dict(type='BN'),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels)
        hidden = self._hidden(in_channels, reduction)
        self._positive('groups', groups)
        self._check(
            in_channels % groups == 0 and hidden % groups == 0,
            'groups',
            f'a divisor of {in_channels} and {hidden} channels',
            groups,
        )
        self._check(
            groups > 1 or not shuffle, 'groups', 'above 1 to shuffle', groups
        )
        self.channel = ChannelGate(
            in_channels, hidden, channel_sigmoid, identity_init
        )
        self.spatial = SpatialGate(
            in_channels, hidden, groups, shuffle, norm_cfg, identity_init
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(self.channel(x))
