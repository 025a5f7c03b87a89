"""Attention on the levels of a feature pyramid."""

from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule, ModuleList
from mmengine.registry import MODELS
from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.own_random import own_random


@MODELS.register_module()
class AttentionNeck(BaseModule):
    """One attention module for each level, as an element of a neck list.

    Behind an FPN it is the second element of the list:

    ```python
    neck=[dict(type='FPN', ...),
          dict(type='mmdet_attn.AttentionNeck', in_channels=[256] * 5,
               plugin=dict(type='mmdet_attn.SE'))]
    ```

    In front of an FPN, `in_channels` are those of the backbone. Maps
    `(N, C, H, W)` keep their shapes.

    Args:
        in_channels: The number of channels $C$ of each level.
        plugin: Type and arguments of the module. Each level has its own.
        init_cfg: As of any MM module.

    Raises:
        InputError: `in_channels` is empty. In `forward`: another number of
            levels.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        plugin: Mapping,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if isinstance(in_channels, int) or not in_channels:
            raise InputError(
                'AttentionNeck: in_channels must list the channels of each '
                f'level, got {in_channels!r}.'
            )
        with own_random('AttentionNeck', plugin.get('type')):
            self.levels = ModuleList(
                MODELS.build(dict(plugin, in_channels=channels))
                for channels in in_channels
            )

    def init_weights(self) -> None:
        with own_random('AttentionNeck'):
            super().init_weights()

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """From maps `(N, C, H, W)`, one of each level, to the same shapes."""
        if len(inputs) != len(self.levels):
            raise InputError(
                f'AttentionNeck: in_channels has {len(self.levels)} levels, '
                f'got {len(inputs)} feature maps.'
            )
        return tuple(
            level(x) for level, x in zip(self.levels, inputs, strict=True)
        )
