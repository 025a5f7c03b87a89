"""The normalisation layers inside attention modules, from a norm_cfg."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmdet_attn.errors import InputError


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose error about a small batch names the way out."""

    def _check_input_dim(self, x: Tensor) -> None:
        super()._check_input_dim(x)
        if self.training and x.numel() == x.shape[1]:
            raise InputError(
                'BN: cannot train on one value per channel, got '
                f'{tuple(x.shape)}: use a batch of two or more, or '
                "norm_cfg=dict(type='GN', num_groups=1)."
            )


NORMS: dict[str, type[nn.Module]] = {
    'BN': BatchNorm2d,
    'SyncBN': nn.SyncBatchNorm,
    'GN': nn.GroupNorm,
}


def build_norm(
    owner: str, norm_cfg: Mapping[str, Any] | None, channels: int
) -> nn.Module:
    """Build the layer of a norm_cfg; None gives one that does nothing.

    Args:
        owner: Name of the attention module, for messages.
        norm_cfg: `type` (BN, SyncBN or GN), `requires_grad`, and the
            arguments of the layer; GN needs `num_groups`.
        channels: The number of channels to normalise.

    Raises:
        InputError: The type or an argument is unknown or does not fit.
    """
    if norm_cfg is None:
        return nn.Identity()
    if not isinstance(norm_cfg, Mapping):
        raise InputError(
            f'{owner}: norm_cfg must be a dict with a type, or None, got '
            f'{norm_cfg!r}.'
        )
    cfg = dict(norm_cfg)
    kind = cfg.pop('type', None)
    if kind not in NORMS:
        raise InputError(
            f'{owner}: norm_cfg type must be one of {", ".join(NORMS)}, '
            f'got {kind!r}.'
        )
    requires_grad = cfg.pop('requires_grad', True)
    name = 'num_channels' if kind == 'GN' else 'num_features'
    try:
        groups = cfg.get('num_groups', 1)
        if type(groups) is not int or groups < 1:
            raise ValueError(f'num_groups is {groups!r}')
        eps = cfg.get('eps', 1e-5)
        if not 0 < eps < math.inf:
            raise ValueError(f'eps is {eps}, not positive and finite')
        # It may be None, for torch's cumulative average.
        momentum = cfg.get('momentum') or 0
        if not 0 <= momentum < math.inf:
            raise ValueError(f'momentum is {momentum}, negative or not finite')
        norm = NORMS[kind](**{name: channels}, **cfg)
        norm.requires_grad_(requires_grad)
    except (TypeError, ValueError) as error:
        raise InputError(
            f'{owner}: norm_cfg {dict(norm_cfg)} does not fit its '
            f'{channels} channels: {error}'
        ) from error
    return norm
