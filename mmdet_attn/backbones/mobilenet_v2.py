"""MobileNetV2 with attention, as ECA-Net has it."""

from collections.abc import Mapping
from typing import Any

import torch.utils.checkpoint as cp
from mmcv.cnn import build_plugin_layer
from mmdet.models.backbones import MobileNetV2
from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from mmengine.model import Sequential
from torch import Tensor


class AttentionInvertedResidual(InvertedResidual):
    """MobileNetV2's block with attention after its last batch norm."""

    def insert(self, cfg: Mapping) -> None:
        channels = self.linear_conv.conv.out_channels
        self.plugin_name, plugin = build_plugin_layer(
            dict(cfg), in_channels=channels
        )
        self.add_module(self.plugin_name, plugin)

    def forward(self, x: Tensor) -> Tensor:
        def residual(x: Tensor) -> Tensor:
            out = self.expand_conv(x) if self.with_expand_conv else x
            out = self.linear_conv(self.depthwise_conv(out))
            out = getattr(self, self.plugin_name)(out)
            return x + out if self.with_res_shortcut else out

        if self.with_cp and x.requires_grad:
            return cp.checkpoint(residual, x, use_reentrant=False)
        return residual(x)


@MODELS.register_module()
class AttentionMobileNetV2(MobileNetV2):
    """MobileNetV2 with attention in every block, after its last batch norm.

    By default that of ECA-MobileNetV2: ECA with k = 1 in blocks of fewer than
    96 output channels and k = 3 in the others.

    Args:
        args: As of ``mmdet.MobileNetV2``; ``(N, 3, H, W)`` in, the feature
            maps of the chosen layers out.
        plugin: Type and arguments of the module.
        narrow: What differs in blocks of fewer than 96 channels; by default
            k = 1 for ECA, nothing for a ``plugin`` of your own.
        kwargs: As of ``mmdet.MobileNetV2``.
    """

    def __init__(
        self,
        *args: Any,
        plugin: Mapping | None = None,
        narrow: Mapping | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if plugin is None:
            plugin = dict(type='mmdet_attn.ECA', kernel_size=3)
            narrow = dict(kernel_size=1) if narrow is None else narrow
        for name in self.layers[:-1]:
            for block in getattr(self, name):
                few = block.linear_conv.conv.out_channels < 96
                block.insert({**plugin, **(narrow or {})} if few else plugin)
        self._freeze_stages()

    def make_layer(
        self,
        out_channels: int,
        num_blocks: int,
        stride: int,
        expand_ratio: int,
    ) -> Sequential:
        """As of ``mmdet.MobileNetV2``, with blocks that take attention."""
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
        # mmengine's, which passes init_weights on; stock's torch one does not.
        return Sequential(*blocks)
