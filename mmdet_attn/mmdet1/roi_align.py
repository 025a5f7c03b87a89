"""RoIAlign as MMDetection 1.x has it."""

import torch
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class LegacyRoIAlign(RoIAlign):
    """RoIAlign from ``x1 * scale`` to ``(x2 + 1) * scale``, as in 1.x.

    mmcv's ``aligned=False`` ends at ``x2 * scale``, and widens a region of
    less than one cell to one cell, which 1.x does not. The aligned operator
    leaves regions as they are, so this one calls it on boxes moved by the
    half cell that it takes off.

    Args:
        output_size: Bins along each axis.
        spatial_scale: Of the feature map, against the image.
        sampling_ratio: Samples per bin along each axis.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int = 2,
    ) -> None:
        super().__init__(
            output_size, spatial_scale, sampling_ratio, aligned=True
        )

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Features ``(N, C, *output_size)`` of RoIs ``(N, 5)``."""
        near = rois[:, 1:3]
        far = torch.maximum(rois[:, 3:] + 1, near)
        half = 0.5 / self.spatial_scale
        return super().forward(
            input, torch.cat([rois[:, :1], near + half, far + half], 1)
        )
