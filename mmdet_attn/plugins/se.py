"""Squeeze-and-Excitation Networks.

CVPR 2018, https://arxiv.org/abs/1709.01507
"""

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.pooling import mean


@MODELS.register_module()
class SE(Gate):
    r"""Squeeze and excitation.

    .. math:: y = x \cdot \sigma(W_2\,\mathrm{ReLU}(W_1\,\mathrm{GAP}(x)))

    GAP is the mean over H and W (the squeeze), :math:`W_1` leads from C to
    C/r channels and :math:`W_2` back (the excitation). Input and output are
    ``(N, C, H, W)``, the gate is ``(N, C, 1, 1)``.

    Args:
        in_channels: C.
        reduction: r; at least one hidden channel is kept.
        bias: Whether :math:`W_1` and :math:`W_2` have biases. The SE authors'
            released networks do; the ECA paper's SE rows do not.
        identity_init: Start as the identity, see :class:`Gate`.

    Raises:
        ValueError: ``in_channels`` or ``reduction`` is not positive.

    Written from the paper's equations 2 to 4; the biases from the authors'
    network definition (hujie-frank/SENet).
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
        hidden = self.fc1(mean(x, 2, 3)).relu()
        return self.fc2(hidden).sigmoid()[:, :, None, None]
