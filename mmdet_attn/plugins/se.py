"""Squeeze-and-Excitation Networks.

CVPR 2018, https://arxiv.org/abs/1709.01507
"""

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SE(Gate):
    r"""Squeeze and excitation: x σ(W2 relu(W1 mean x)).

    $$
    y = x \cdot \sigma(W_2\,\mathrm{ReLU}(W_1\,\mathrm{GAP}(x)))
    $$

    $\mathrm{GAP}$ is the mean over height and width (the squeeze). $W_1$ leads
    from $C$ to $C / r$ channels and $W_2$ leads back (the excitation). Input
    and output are `(N, C, H, W)`, the gate is `(N, C, 1, 1)`.

    Args:
        in_channels: The number of channels $C$.
        reduction: The reduction $r$. At least one hidden channel is kept.
        bias: Whether $W_1$ and $W_2$ have biases. The networks of the SE
            authors have them, the SE rows of the ECA-Net paper do not.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` or `reduction` is not positive.

    Placement:
        The paper puts it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages. The configs
        have `bias=False`, as the ECA-Net paper.

    Evidence:
        The ECA-Net paper reports these gains of box AP on COCO (Table 5):
        +1.3 for Faster R-CNN, +1.5 for Mask R-CNN and +1.5 for RetinaNet with
        ResNet-50; +0.9, +1.3 and +1.0 with ResNet-101. Users who put SE into
        a network with plain weights report a lower AP (mmdetection issues
        3233 and 3247). Not measured here.

    Source:
        Written from the paper's equations 2 to 4. The biases are those of
        the authors' network definition (hujie-frank/SENet).
    """

    _abbr_ = 'se'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 16,
        bias: bool = True,
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        hidden = self._hidden(in_channels, reduction)
        self.fc1 = nn.Linear(in_channels, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, in_channels, bias=bias)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, 1, 1)`."""
        hidden = self.fc1(mean(x, 2, 3)).relu()
        return self.fc2(hidden).sigmoid()[:, :, None, None]
