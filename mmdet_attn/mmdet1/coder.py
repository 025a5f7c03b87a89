"""Deltas to boxes as MMDetection 1.x has them."""

from collections.abc import Sequence

from mmdet.models.task_modules.coders import LegacyDeltaXYWHBBoxCoder
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor


@TASK_UTILS.register_module()
class LegacyBoxCoder(LegacyDeltaXYWHBBoxCoder):
    r"""The box coder of 1.x, with the halves that mmdet's own leaves out.

    .. math::
        x_1 = g_x - g_w / 2 + 1/2, \quad x_2 = g_x + g_w / 2 - 1/2

    and so for y, each within the image's first and last pixel.

    ``mmdet.LegacyDeltaXYWHBBoxCoder`` omits the halves on purpose, because it
    scores better so: in MMDetection 3.x nobody adds the 1 to the width again,
    neither RoIAlign nor the results that go to the evaluation. Here both do
    (see :mod:`mmdet_attn.mmdet1`), so decoding inverts encoding exactly, and
    the boxes are not half a pixel off.
    """

    def decode(
        self,
        bboxes: Tensor,
        pred_bboxes: Tensor,
        max_shape: Sequence[int] | None = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> Tensor:
        """Boxes of the shape of ``pred_bboxes``: 4 columns per class.

        Args:
            bboxes: Anchors or proposals, ``(N, 4)``.
            pred_bboxes: Deltas, ``(N, 4 * classes)``.
            max_shape: Height and width of the image. None does not clip.
            wh_ratio_clip: Smallest change of width and height, and the
                inverse of the largest.
        """
        decoded = super().decode(bboxes, pred_bboxes, None, wh_ratio_clip)
        # A view: what holds the boxes, tensor or box type, changes with it.
        corners = get_box_tensor(decoded).view(-1, 2, 2)
        corners[:, 0] += 0.5
        corners[:, 1] -= 0.5
        if max_shape is not None:
            height, width = max_shape[:2]
            corners[..., 0].clamp_(0, width - 1)
            corners[..., 1].clamp_(0, height - 1)
        return decoded
