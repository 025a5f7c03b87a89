"""ResNet that takes attention where stock ResNet does not."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock
from mmdet.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_attn.backbones.blocks import (
    AttentionBasicBlock,
    AttentionBottleneck,
)
from mmdet_attn.errors import InputError
from mmdet_attn.own_random import init_apart, own_random


@MODELS.register_module()
class AttentionResNet(ResNet):
    """ResNet with plugins in any block, at any position.

    Without `plugins`, and wherever stock `mmdet.ResNet` can take them, its
    keys and outputs are those of stock, with plugins up to rounding. It adds:

    - plugins in the blocks of ResNet-18 and ResNet-34,
    - the position `after_block`, behind the last ReLU,
    - the choice of `blocks`,
    - one pass: a gate behind the last convolution multiplies and adds at
      once, and needs no more memory in training than no gate,
    - batch norm that learns: under `norm_eval`, the norm layers of plugins
      without pretrained weights stay in train mode, except in frozen stages.
      In eval mode their statistics would stay at mean 0 and variance 1.

    Input is `(N, 3, H, W)`, output are the maps of the chosen stages.

    Args:
        args: As of `mmdet.ResNet`.
        plugins: Dictionaries with `cfg` (type and arguments, perhaps
            `postfix`) and `position` (`after_conv1`, `after_conv2`,
            `after_conv3` where the block has one, or `after_block`).
            Optional are `stages` (one truth value for each stage) and
            `blocks` (indices in a stage; -1 is its last).
        init_cfg: As of `mmdet.ResNet`.
        kwargs: As of `mmdet.ResNet`.

    Raises:
        InputError: A plugin has an unknown key or position, too few stages,
            or a block that a stage does not have.
    """

    arch_settings = {  # noqa: RUF012
        depth: (
            AttentionBasicBlock
            if block is BasicBlock
            else AttentionBottleneck,
            counts,
        )
        for depth, (block, counts) in ResNet.arch_settings.items()
    }

    def __init__(
        self,
        *args: Any,
        plugins: Sequence[Mapping] | None = None,
        init_cfg: dict | list | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, init_cfg=init_cfg, **kwargs)
        self.plugins = plugins
        self._zero_residuals = init_cfg is None and self.zero_init_residual
        for plugin in plugins or ():
            self._insert(dict(plugin))
        self._freeze_stages()

    @property
    def stages(self) -> list[nn.Sequential]:
        """The residual stages, each a sequence of blocks."""
        return [getattr(self, name) for name in self.res_layers]

    def _insert(self, plugin: dict) -> None:
        unknown = plugin.keys() - {'cfg', 'position', 'stages', 'blocks'}
        if unknown or not {'cfg', 'position'} <= plugin.keys():
            raise InputError(
                'AttentionResNet: a plugin has cfg, position, and perhaps '
                f'stages and blocks, got {sorted(plugin)}.'
            )
        position, blocks = plugin['position'], plugin.get('blocks')
        chosen = plugin.get('stages') or (True,) * len(self.stages)
        if len(chosen) != len(self.stages):
            raise InputError(
                f'AttentionResNet: stages must have {len(self.stages)} '
                f'values, got {tuple(chosen)}.'
            )
        for number, stage in enumerate(self.stages, 1):
            if not chosen[number - 1]:
                continue
            count = len(stage)
            for index in range(count) if blocks is None else blocks:
                if not -count <= index < count:
                    raise InputError(
                        f'AttentionResNet: blocks must be from {-count} to '
                        f'{count - 1} in stage {number}, got {index}.'
                    )
                widths = stage[index].widths()
                if position not in widths:
                    raise InputError(
                        'AttentionResNet: position must be one of '
                        f'{", ".join(widths)} in ResNet-{self.depth}, got '
                        f'{position!r}.'
                    )
                block, cfg = stage[index], plugin['cfg']
                kind = cfg.get('type'), cfg.get('postfix')
                with own_random(number, index, position, *kind):
                    block.insert(position, widths[position], cfg)

    def _inserted(self, first_stage: int = 0) -> dict[str, nn.Module]:
        return {
            f'{stage}.{index}.{name}': getattr(block, name)
            for stage in self.res_layers[first_stage:]
            for index, block in enumerate(getattr(self, stage))
            for name in block.inserted_names
        }

    def _plugin_norms(self, first_stage: int = 0) -> list[nn.Module]:
        plugins = self._inserted(first_stage).values()
        layers = [layer for plugin in plugins for layer in plugin.modules()]
        return [layer for layer in layers if isinstance(layer, _BatchNorm)]

    def init_weights(self) -> None:
        if self._zero_residuals:
            # Stock decides this by the class of the block; ours is another.
            for stage in self.stages:
                for block in stage:
                    last = 'norm3' if hasattr(block, 'conv3') else 'norm2'
                    block.init_cfg = dict(
                        type='Constant', val=0, override=dict(name=last)
                    )
        hooks = [
            norm.register_load_state_dict_pre_hook(_remember_loading)
            for norm in self._plugin_norms()
        ]
        init_apart(self, super().init_weights, self._inserted())
        for hook in hooks:
            hook.remove()

    def train(self, mode: bool = True) -> 'AttentionResNet':
        super().train(mode)
        if mode and self.norm_eval:
            for norm in self._plugin_norms(max(0, self.frozen_stages)):
                norm.train(not getattr(norm, 'pretrained', False))
        return self


def _remember_loading(
    norm: Any, state_dict: dict, prefix: str, *_: Any
) -> None:
    """Note whether the pretrained weights of a backbone have this layer."""
    norm.pretrained = prefix + 'running_mean' in state_dict
