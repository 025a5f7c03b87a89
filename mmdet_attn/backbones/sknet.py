"""SKNet: the network of Selective Kernel Networks."""

from typing import Any

from mmdet.models.backbones import ResNeXt
from mmdet.registry import MODELS
from torch import nn

from mmdet_attn.plugins import SKConv2d


@MODELS.register_module()
class SKNet(ResNeXt):
    """ResNeXt 32x4d with selective kernels, without a norm behind them.

    With depth 50 it is the authors' SKNet-50. An `mmdet_attn.SKConv2d` is in
    the place of every 3x3 convolution and of its batch norm. Input is
    `(N, 3, H, W)`, output are the maps of the chosen stages.

    Args:
        groups: The groups of the convolutions.
        num_stages: The number of stages.
        dcn: Another type or other arguments of the convolutions.
        kwargs: As of `mmdet.ResNeXt`.
    """

    def __init__(
        self,
        groups: int = 32,
        num_stages: int = 4,
        dcn: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            groups=groups,
            num_stages=num_stages,
            dcn=dict(type='mmdet_attn.SKConv2d') | (dcn or {}),
            stage_with_dcn=(True,) * num_stages,
            **kwargs,
        )
        for block in self.modules():
            if isinstance(getattr(block, 'conv2', None), SKConv2d):
                # It ends with a ReLU, so the block's own changes nothing.
                setattr(block, block.norm2_name, nn.Identity())
