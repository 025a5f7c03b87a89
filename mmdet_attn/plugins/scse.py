"""Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional
Networks.

MICCAI 2018, https://arxiv.org/abs/1803.02579
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SCSE(Gate):
    r"""Spatial and channel squeeze and excitation: max(x · SE, x σ(w x)).

    $$
    y = \mathrm{max}(x \cdot c, x \cdot s), \quad
    c = \sigma(W_2\,\mathrm{ReLU}(W_1\,\mathrm{GAP}(x))), \quad
    s = \sigma(w x)
    $$

    $\mathrm{GAP}$ is the mean over height and width, and $W_1$ leads to
    $C / r$ channels. $w$ is a 1x1 convolution to one channel. Input, output
    and gate are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$ of the channel gate $c$. At least one
            hidden channel is kept.
        fusion: `'max'` is the authors' code, `'add'` is the first paper's
            $x \cdot c + x \cdot s$.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or `fusion` is unknown.

    Placement:
        The paper puts it after the blocks of U-shaped segmentation networks.
        The configs put it in SE's place in a ResNet:
        `position='after_conv3'` in all stages.

    Evidence:
        No detection result was collected, and none was measured here. The
        paper is about segmentation.

    Source:
        Follows the authors' code (ai-med/squeeze_and_excitation).
    """

    _abbr_ = 'scse'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        fusion: str = 'max',
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        hidden = self._hidden(in_channels, reduction)
        self.fusion = self._one_of('fusion', fusion, ('max', 'add'))
        self.fc1 = nn.Linear(in_channels, hidden)
        self.fc2 = nn.Linear(hidden, in_channels)
        self.conv = nn.Conv2d(in_channels, 1, 1)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        hidden = self.fc1(mean(x, 2, 3)).relu()
        channel = self.fc2(hidden).sigmoid()[:, :, None, None]
        spatial = self.conv(x).sigmoid()
        if self.fusion == 'add':
            return channel + spatial
        # Where x is negative, the smaller gate gives the larger product.
        return torch.where(
            x < 0,
            torch.minimum(channel, spatial),
            torch.maximum(channel, spatial),
        )
