"""SPM, the strip pooling module of: Strip Pooling: Rethinking Spatial Pooling
for Scene Parsing.

CVPR 2020, https://arxiv.org/abs/2003.13328
"""

from collections.abc import Mapping

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.norm import build_norm
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SPM(Gate):
    r"""Strip pooling: x σ(W relu(F_h mean_W + F_w mean_H)).

    $$
    y = x \cdot \sigma(W\,\mathrm{ReLU}(
    \mathrm{BN}(F_h\,\mathrm{mean}_W\,x)
    + \mathrm{BN}(F_w\,\mathrm{mean}_H\,x)))
    $$

    $F_h$ is a 3x1 convolution along the height and $F_w$ is a 1x3 convolution
    along the width. Both sum to a map of size $H \times W$. $W$ is a 1x1
    convolution. All have $C$ channels. Input, output and gate are
    `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        norm_cfg: BN, SyncBN or GN, or None.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive, or the norm is unknown. In
            training: batch norm on one value per channel.

    Placement:
        The authors put it behind the 3x3 convolution, in the last block of
        stages 1 to 3 and in all blocks of stage 4: `position='after_conv2'`.
        The config uses `AttentionResNet`, which lets the batch norm of fresh
        modules learn.

    Evidence:
        No detection result was collected, and none was measured here. The
        paper is about segmentation.

    Source:
        Follows the authors' code (houqb/SPNet) and keeps its key names. Their
        class returns the gate, and their block multiplies. `StripPooling` in
        their code and in popular collections is another module, which is not
        here.
    """

    _abbr_ = 'spm'

    def __init__(
        self,
        in_channels: int,
        norm_cfg: Mapping | None = dict(type='BN'),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        c = in_channels
        self.conv1 = nn.Conv2d(c, c, (3, 1), padding=(1, 0), bias=False)
        self.bn1 = build_norm('SPM', norm_cfg, c)
        self.conv2 = nn.Conv2d(c, c, (1, 3), padding=(0, 1), bias=False)
        self.bn2 = build_norm('SPM', norm_cfg, c)
        self.conv3 = nn.Conv2d(c, c, 1)
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(conv.weight, mode='fan_out')

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        rows = self.bn1(self.conv1(mean(x, 3).unsqueeze(3)))
        columns = self.bn2(self.conv2(mean(x, 2).unsqueeze(2)))
        return self.conv3((rows + columns).relu()).sigmoid()
