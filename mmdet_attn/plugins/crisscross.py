"""CCNet: Criss-Cross Attention for Semantic Segmentation.

ICCV 2019, https://arxiv.org/abs/1811.11721
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.plugins.amp import full_precision, without_autocast
from mmdet_attn.plugins.base import Attention


@MODELS.register_module()
class CrissCross(Attention):
    r"""Criss-cross attention: x + γ Σ softmax(qᵀk) v along row and column.

    $$
    y_i = x_i + \gamma \sum_{j \in \mathcal{X}(i)}
    \mathrm{softmax}_j(q_i \cdot k_j)\,v_j
    $$

    $\mathcal{X}(i)$ are the $H + W - 1$ positions in the row and in the
    column of position $i$, with $i$ itself counted once. Query $q$ and key
    $k$ are 1x1 convolutions to $C / 8$ channels, the value $v$ is one to $C$
    channels. Input and output are `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        recurrence: How many times the same module is applied. With two times
            a position sees the whole map.

    Raises:
        InputError: `in_channels` is below 8, or `recurrence` is not positive.

    Placement:
        The paper puts it into the segmentation head, on the last stage, and
        applies it twice. The config puts it at the end of that stage:
        `position='after_block'` of the last block of stage 4, with
        `recurrence=2`.

    Evidence:
        The paper has rows of Mask R-CNN on COCO. Their figures were not
        collected. Not measured here.

    Source:
        Follows the authors' code (speedinghzl/CCNet), and keeps its key
        names: the product is not scaled, and $\gamma$ starts at zero, the
        module as the identity. mmcv's `CrissCrossAttention` computes the
        same; its key `gamma.scale` is read, too. mmcv's class starts from
        the Kaiming start of its host, this one from the authors' start. The
        logits are computed in float32 at least.
    """

    _abbr_ = 'crisscross'

    def __init__(self, in_channels: int, recurrence: int = 1) -> None:
        super().__init__(in_channels)
        self._check(in_channels >= 8, 'in_channels', 'at least 8', in_channels)
        self.recurrence = self._positive('recurrence', recurrence)
        self.query_conv = nn.Conv2d(in_channels, in_channels // 8, 1)
        self.key_conv = nn.Conv2d(in_channels, in_channels // 8, 1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.init_weights()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.zeros_(self.gamma)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            q, k, v = self.query_conv(x), self.key_conv(x), self.value_conv(x)
            with without_autocast(x):
                out = self._attend(*map(full_precision, (q, k, v)))
            x = x + (self.gamma * out).to(x.dtype)
        return x

    @staticmethod
    def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The weighted sums of $v$, `(N, C, H, W)`."""
        # To the positions g of the column, and v of the row.
        column = torch.einsum('nchw,ncgw->nhwg', q, k)
        row = torch.einsum('nchw,nchv->nhwv', q, k)
        index = torch.arange(q.shape[2], device=q.device)
        itself = (index[:, None] == index)[:, None]
        column = column.masked_fill(itself, -torch.inf)
        # One softmax over both, without a copy that joins them.
        peak = torch.maximum(column.amax(3, True), row.amax(3, True)).detach()
        column, row = (column - peak).exp(), (row - peak).exp()
        total = column.sum(3) + row.sum(3)
        out = torch.einsum('nhwg,ncgw->nchw', column, v)
        out = out + torch.einsum('nhwv,nchv->nchw', row, v)
        return out / total.unsqueeze(1)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if (key := prefix + 'gamma.scale') in state_dict:
            state_dict[prefix + 'gamma'] = state_dict.pop(key).reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args)
