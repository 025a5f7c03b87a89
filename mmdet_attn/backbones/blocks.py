"""The residual blocks of ResNets, with plugins at any position."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.utils.checkpoint as cp
from mmcv.cnn import build_plugin_layer
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins.residual import add_scaled, remember_norm, splits


class _PluginBlock(nn.Module):
    """A residual block that takes plugins after it is built."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inserted: dict[str, list[str]] = {}

    def insert(self, position: str, channels: int, cfg: Mapping) -> None:
        """Put one more plugin at a position."""
        cfg = dict(cfg)
        postfix = cfg.pop('postfix', '')
        name, layer = build_plugin_layer(cfg, postfix, in_channels=channels)
        if hasattr(self, name):
            raise InputError(
                f'AttentionResNet: two plugins named {name!r} in one block: '
                f'give one of them a postfix.'
            )
        self.add_module(name, layer)
        self.inserted.setdefault(position, []).append(name)

    @property
    def inserted_names(self) -> list[str]:
        """The attributes that hold the plugins, at any position."""
        return [name for names in self.inserted.values() for name in names]

    def attend(self, position: str, x: Tensor) -> Tensor:
        """Apply the plugins of a position in the order of their insertion."""
        for name in self.inserted.get(position, ()):
            x = getattr(self, name)(x)
        return x

    def add(
        self, position: str, norm: nn.Module, x: Tensor, identity: Tensor
    ) -> Tensor:
        """identity + plugins(norm(x)).

        One plugin that splits multiplies and adds in one pass, and its input
        is not kept for the backward pass. A traced or compiled program has
        the plain form, which its compiler changes as it likes.
        """
        y = norm(x)
        names = self.inserted.get(position, ())
        if not names:
            return y.add_(identity)
        plugin = getattr(self, names[0])
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if traced or len(names) > 1 or not splits(plugin):
            return self.attend(position, y) + identity
        remember_norm(y, norm, x)
        return add_scaled(identity, *plugin.split(y))

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            out = cp.checkpoint(self.residual, x, use_reentrant=False)
        else:
            out = self.residual(x)
        return self.attend('after_block', self.relu(out))


class AttentionBasicBlock(_PluginBlock, BasicBlock):
    """The block of ResNet-18 and -34, with plugins."""

    def widths(self) -> dict[str, int]:
        """The channels at each position."""
        positions = ('after_conv1', 'after_conv2', 'after_block')
        return dict.fromkeys(positions, self.conv2.out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """The block without its last ReLU."""
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.conv2(self.attend('after_conv1', out))
        identity = x if self.downsample is None else self.downsample(x)
        return self.add('after_conv2', self.norm2, out, identity)


class AttentionBottleneck(_PluginBlock, Bottleneck):
    """The block of deeper ResNets, with plugins also after its end."""

    def widths(self) -> dict[str, int]:
        """The channels at each position."""
        narrow, wide = self.conv1.out_channels, self.conv3.out_channels
        return {
            'after_conv1': narrow,
            'after_conv2': narrow,
            'after_conv3': wide,
            'after_block': wide,
        }

    def residual(self, x: Tensor) -> Tensor:
        """The block without its last ReLU."""
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.attend('after_conv1', out)
        out = self.relu(self.norm2(self.conv2(out)))
        out = self.conv3(self.attend('after_conv2', out))
        identity = x if self.downsample is None else self.downsample(x)
        return self.add('after_conv3', self.norm3, out, identity)
