"""Deltas to boxes, as in MMDetection 1.x."""

from collections.abc import Sequence

from mmdet.models.task_modules.coders import LegacyDeltaXYWHBBoxCoder
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor


@TASK_UTILS.register_module()
class LegacyBoxCoder(LegacyDeltaXYWHBBoxCoder):
    r"""The box coder of 1.x, with the halves that mmdet's coder leaves out.

    $$x_1 = g_x - g_w / 2 + 1/2, \quad x_2 = g_x + g_w / 2 - 1/2$$

    The same holds for y. Each is clipped to the first and the last pixel of
    the image.

    `mmdet.LegacyDeltaXYWHBBoxCoder` omits the halves on purpose, because
    MMDetection 3.x scores better without them: neither RoIAlign nor the
    results add the 1 to the width again. In `mmdet_attn.mmdet1` both do.
    So decoding inverts encoding exactly.
    """

    def decode(
        self,
        bboxes: Tensor,
        pred_bboxes: Tensor,
        max_shape: Sequence[int] | None = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> Tensor:
        """Apply deltas to boxes, with 4 columns for each class.

        Args:
            bboxes: Anchors or proposals, `(N, 4)`.
            pred_bboxes: Deltas, `(N, 4 * classes)`.
            max_shape: Height and width of the image. None does not clip.
            wh_ratio_clip: Smallest change of width and height. The largest
                is its inverse.

        Returns:
            Boxes of the shape of `pred_bboxes`.
        """
        decoded = super().decode(bboxes, pred_bboxes, None, wh_ratio_clip)
        # A view: it changes the boxes, be they a tensor or of a box type.
        corners = get_box_tensor(decoded).view(-1, 2, 2)
        corners[:, 0] += 0.5
        corners[:, 1] -= 0.5
        if max_shape is not None:
            height, width = max_shape[:2]
            corners[..., 0].clamp_(0, width - 1)
            corners[..., 1].clamp_(0, height - 1)
        return decoded
