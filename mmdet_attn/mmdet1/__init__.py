"""MMDetection 1.x's arithmetic, for detectors that were trained with it.

A box of 1.x names its first and its last pixel, so its width is
`x2 - x1 + 1`. A box of 3.x names its two edges. At inference, the classes
here compute what 1.x computes, together with settings of MMDetection 3.x:

| rule of 1.x | class or setting |
|---|---|
| anchors | `LegacyAnchorGenerator(center_offset=0.5)` of mmdet |
| deltas to boxes | `LegacyBoxCoder` |
| IoU of NMS | `nms=dict(type='nms', offset=1, ...)` of mmcv |
| no smallest proposal | `min_bbox_size=-1`; 0 drops boxes one pixel wide |
| level and RoIAlign | `LegacyRoIExtractor`, `LegacyRoIAlign` |
| order of box and mask | `LegacyRoIHead` |
| RetinaNet's selection | `LegacyRetinaHead` |
| width of a result | the two heads move the far corner of their results |

Three things stay as they are in 3.x:

- Training.
- The test scale of an image: its new size over its old size, for each axis.
  1.x divided both axes by the one factor that was asked for. The difference
  comes from rounding the new size and is below half a pixel.
- NMS of all classes at once. It moves the classes apart and so rounds the
  coordinates, by less than a hundredth of a pixel.
"""

from mmdet_attn.mmdet1.coder import LegacyBoxCoder
from mmdet_attn.mmdet1.retina_head import LegacyRetinaHead
from mmdet_attn.mmdet1.roi_align import LegacyRoIAlign
from mmdet_attn.mmdet1.roi_extractor import LegacyRoIExtractor
from mmdet_attn.mmdet1.roi_head import LegacyRoIHead

__all__ = [
    'LegacyBoxCoder',
    'LegacyRetinaHead',
    'LegacyRoIAlign',
    'LegacyRoIExtractor',
    'LegacyRoIHead',
]
