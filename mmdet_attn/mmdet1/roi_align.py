"""RoIAlign, as in MMDetection 1.x."""

import torch
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class LegacyRoIAlign(RoIAlign):
    """RoIAlign from `x1 * scale` to `(x2 + 1) * scale`, as in 1.x.

    mmcv's `aligned=False` ends at `x2 * scale`, and it widens a region of
    less than one cell to one cell. 1.x does neither. mmcv's `aligned=True`
    keeps the size of regions and moves them by half a cell. This class calls
    it on boxes that are moved back.

    Args:
        output_size: Bins along each axis.
        spatial_scale: Size of the feature map over that of the image.
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
        """Features `(N, C, *output_size)` of RoIs `(N, 5)`."""
        near = rois[:, 1:3]
        far = torch.maximum(rois[:, 3:] + 1, near)
        half = 0.5 / self.spatial_scale
        return super().forward(
            input, torch.cat([rois[:, :1], near + half, far + half], 1)
        )
