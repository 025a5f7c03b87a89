"""ECA-NS: efficient channel attention whose weights are not shared.

ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks.
CVPR 2020, https://arxiv.org/abs/1910.03151 (Table 2)
"""

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class ECANS(Gate):
    r"""ECA without shared weights: as ECA, k weights for each channel.

    $$
    y = x \cdot \sigma(\omega), \quad
    \omega_c = \sum_{j=1}^{k} w_{cj}\,\mathrm{GAP}(x)_{c + j - (k + 1) / 2}
    $$

    $\mathrm{GAP}$ is the mean over height and width, and zero outside the $C$
    channels. The weights $w$ are `(C, 1, k)`. Input and output are
    `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        kernel_size: The kernel size $k$, odd; 3 in the paper's table.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: A size is not positive, or `kernel_size` is even.

    Placement:
        As ECA: `position='after_conv3'` in all stages.

    Evidence:
        The paper has it on ImageNet only (Table 2): 77.35 top-1 with
        ResNet-50, where ECA has 77.43 and the plain network 75.20. Not
        measured in detection.

    Source:
        Follows the authors' code (BangguWu/ECANet): the window of a channel
        is centred on it. In the paper's equation 6 it starts there.
    """

    _abbr_ = 'ecans'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 3,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.kernel_size = self._odd('kernel_size', kernel_size)
        self.conv = nn.Conv1d(
            in_channels,
            in_channels,
            kernel_size,
            groups=in_channels,
            bias=False,
        )
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        padding = self.kernel_size // 2
        means = F.pad(mean(x, 2, 3), (padding, padding))
        windows = means.unfold(1, self.kernel_size, 1)
        omega = (windows * self.conv.weight.squeeze(1)).sum(2)
        return omega.sigmoid()[:, :, None, None]
