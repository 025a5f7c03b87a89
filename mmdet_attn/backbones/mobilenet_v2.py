"""MobileNetV2 with attention, as ECA-Net or Coordinate Attention have it."""

from collections.abc import Mapping
from typing import Any

import torch.utils.checkpoint as cp
from mmcv.cnn import build_plugin_layer
from mmdet.models.backbones import MobileNetV2
from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from mmengine.model import Sequential
from torch import Tensor

from mmdet_attn.errors import InputError

POSITIONS = ('after_conv2', 'after_conv3')


class AttentionInvertedResidual(InvertedResidual):
    """MobileNetV2's block with attention at one of its positions."""

    inserted: tuple[str, str] | None = None

    def insert(self, cfg: Mapping, position: str = 'after_conv3') -> None:
        """Put in the plugin, if the block has the position."""
        if position == 'after_conv2' and not self.with_expand_conv:
            return
        before = {
            'after_conv2': self.depthwise_conv,
            'after_conv3': self.linear_conv,
        }
        channels = before[position].conv.out_channels
        name, plugin = build_plugin_layer(dict(cfg), in_channels=channels)
        self.add_module(name, plugin)
        self.inserted = position, name

    @property
    def inserted_names(self) -> list[str]:
        """The attribute that holds the plugin, if there is one."""
        return [] if self.inserted is None else [self.inserted[1]]

    def attend(self, position: str, x: Tensor) -> Tensor:
        if self.inserted is None or self.inserted[0] != position:
            return x
        return getattr(self, self.inserted[1])(x)

    def forward(self, x: Tensor) -> Tensor:
        def residual(x: Tensor) -> Tensor:
            out = self.expand_conv(x) if self.with_expand_conv else x
            out = self.attend('after_conv2', self.depthwise_conv(out))
            out = self.attend('after_conv3', self.linear_conv(out))
            return x + out if self.with_res_shortcut else out

        if self.with_cp and x.requires_grad:
            return cp.checkpoint(residual, x, use_reentrant=False)
        return residual(x)


@MODELS.register_module()
class AttentionMobileNetV2(MobileNetV2):
    """MobileNetV2 with attention in its blocks.

    The default is ECA-MobileNetV2: ECA with k = 1 in blocks of fewer than 96
    output channels, and with k = 3 in the others. Input is `(N, 3, H, W)`,
    output are the maps of the chosen layers.

    Args:
        args: As of `mmdet.MobileNetV2`.
        plugin: Type and arguments of the module.
        narrow: Arguments that differ in blocks of fewer than 96 channels. The
            default is k = 1 for ECA, and nothing for another `plugin`.
        position: `after_conv3` is behind the last batch norm of every block.
            `after_conv2` is behind the activation of the depthwise
            convolution, on the hidden channels of the blocks that expand, as
            Coordinate Attention's authors have it.
        kwargs: As of `mmdet.MobileNetV2`.

    Raises:
        InputError: `position` is neither of the two.
    """

    def __init__(
        self,
        *args: Any,
        plugin: Mapping | None = None,
        narrow: Mapping | None = None,
        position: str = 'after_conv3',
        **kwargs: Any,
    ) -> None:
        if position not in POSITIONS:
            raise InputError(
                'AttentionMobileNetV2: position must be one of '
                f'{", ".join(POSITIONS)}, got {position!r}.'
            )
        super().__init__(*args, **kwargs)
        if plugin is None:
            plugin = dict(type='mmdet_attn.ECA', kernel_size=3)
            narrow = dict(kernel_size=1) if narrow is None else narrow
        for name in self.layers[:-1]:
            for block in getattr(self, name):
                few = block.linear_conv.conv.out_channels < 96
                cfg = {**plugin, **(narrow or {})} if few else plugin
                block.insert(cfg, position)
        self._freeze_stages()

    def make_layer(
        self,
        out_channels: int,
        num_blocks: int,
        stride: int,
        expand_ratio: int,
    ) -> Sequential:
        """As of `mmdet.MobileNetV2`, with blocks that take attention."""
        blocks = []
        for index in range(num_blocks):
            blocks.append(
                AttentionInvertedResidual(
                    self.in_channels,
                    out_channels,
                    mid_channels=round(self.in_channels * expand_ratio),
                    stride=1 if index else stride,
                    with_expand_conv=expand_ratio != 1,
                    conv_cfg=self.conv_cfg,
                    norm_cfg=self.norm_cfg,
                    act_cfg=self.act_cfg,
                    with_cp=self.with_cp,
                )
            )
            self.in_channels = out_channels
        # mmengine's Sequential calls init_weights of its blocks, torch's not.
        return Sequential(*blocks)
