"""MMDetection 1.x's arithmetic, for detectors that were trained with it.

A box of 1.x names its first and its last pixel, so it is ``x2 - x1 + 1``
wide; one of 3.x names its two edges. The parts here, together with the
switches that MMDetection 3.x has, compute at inference what 1.x computes:

=====================  ====================================================
rule of 1.x            here
=====================  ====================================================
anchors                ``LegacyAnchorGenerator(center_offset=0.5)`` of mmdet
deltas to boxes        :class:`LegacyBoxCoder`
IoU of NMS             ``nms=dict(type='nms', offset=1, ...)`` of mmcv
no smallest proposal   ``min_bbox_size=-1``; 0 drops boxes one pixel wide
level and RoIAlign     :class:`LegacyRoIExtractor`, :class:`LegacyRoIAlign`
order of box and mask  :class:`LegacyRoIHead`
RetinaNet's selection  :class:`LegacyRetinaHead`
width of a result      the two heads move the far corner of what they return
=====================  ====================================================

Left as it is in 3.x: training; the test scale of an image, which is its new
over its old size per axis, where 1.x divided both axes by the one factor that
was asked for (under half a pixel, from rounding the new size); and NMS of all
classes at once, which moves them apart and so rounds coordinates (under a
hundredth of a pixel).
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
