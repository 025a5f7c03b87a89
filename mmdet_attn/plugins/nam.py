"""NAM: Normalization-based Attention Module.

NeurIPS 2021 workshop ImageNet PPF, https://arxiv.org/abs/2111.12419
"""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor

from mmdet_attn.plugins.base import Gate
from mmdet_attn.plugins.norm import build_norm


@MODELS.register_module()
class NAM(Gate):
    r"""Normalization-based attention: x σ(w BN(x)), w = |γ| / Σ|γ|.

    $$
    y = x \cdot \sigma(w_c\,\mathrm{BN}(x)_c), \quad
    w_c = \frac{|\gamma_c|}{\sum_d |\gamma_d|}
    $$

    $\gamma$ is the scale of that batch norm. No gradient flows through $w$,
    so $\gamma$ learns as a scale only. Input, output and gate are
    `(N, C, H, W)`.

    Args:
        in_channels: The number of channels $C$.
        norm_cfg: BN, SyncBN or GN, with a scale.
        identity_init: Start as the identity, see `Gate`.

    Raises:
        InputError: `in_channels` is not positive, or the norm is unknown or
            has no scale. In training: batch norm on one value per channel.

    Placement:
        The authors put it into every block, between the last batch norm and
        the addition: `position='after_conv3'` in all stages. The config uses
        `AttentionResNet`, which lets the batch norm of fresh modules learn.

    Evidence:
        No detection result was collected, and none was measured here. At the
        start $w$ is $1 / C$, so the gate is near 0.5 for any input.

    Source:
        Follows the authors' code (Christian-lyc/NAM). It has the channel part
        only: the spatial part of the paper was not published. The paper's
        sparsity penalty is no part of the module. The authors add
        1e-4 sign($\gamma$) to the gradients of these scales in their
        training script.
    """

    _abbr_ = 'nam'

    def __init__(
        self,
        in_channels: int,
        norm_cfg: Mapping | None = dict(type='BN'),
        identity_init: bool = False,
    ) -> None:
        super().__init__(in_channels, identity_init)
        self.norm: Any = build_norm('NAM', norm_cfg, in_channels)
        has_scale = getattr(self.norm, 'weight', None) is not None
        self._check(has_scale, 'norm_cfg', 'a norm with a scale', norm_cfg)
        self.init_weights()

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to `(N, C, H, W)`."""
        scale = self.norm.weight.detach().abs()
        w = scale / scale.sum()
        return (w[:, None, None] * self.norm(x)).sigmoid()
