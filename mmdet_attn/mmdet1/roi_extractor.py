"""The pyramid level and the features of a RoI, as in MMDetection 1.x."""

from collections.abc import Sequence

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_attn.mmdet1.boxes import to_edges


@MODELS.register_module()
class LegacyRoIExtractor(SingleRoIExtractor):
    """A `SingleRoIExtractor` that counts the last pixel of a RoI.

    Args:
        roi_layer: Config of a layer of any registry. Use `LegacyRoIAlign`
            for detectors of 1.x.
        **kwargs: Arguments of `mmdet.SingleRoIExtractor`.
    """

    def build_roi_layers(
        self, layer_cfg: dict, featmap_strides: Sequence[int]
    ) -> nn.ModuleList:
        # The base class looks a name up in mmcv.ops only.
        layer = MODELS.get(layer_cfg['type'])
        return super().build_roi_layers(
            {**layer_cfg, 'type': layer}, featmap_strides
        )

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Level of each RoI `(N, 5)`, by the square root of its area."""
        return super().map_roi_levels(to_edges(rois), num_levels)
