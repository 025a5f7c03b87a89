"""From proposals to results in the order of MMDetection 1.x."""

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.utils import empty_instances
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from torch import Tensor

from mmdet_attn.mmdet1.boxes import to_edges
from mmdet_attn.mmdet1.masks import paste_masks


@MODELS.register_module()
class LegacyRoIHead(StandardRoIHead):
    """A `StandardRoIHead` that predicts as in 1.x and trains as in 3.x.

    Boxes go back to the scale of the image before NMS, also with a mask
    branch: NMS adds 1 to sizes, so the scale matters. Masks are pasted into
    whole pixels. The results have the far corner of 3.x.
    """

    def predict(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: list,
        batch_data_samples: list,
        rescale: bool = False,
    ) -> list:
        """Detect in each image: bboxes, scores, labels, and masks."""
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self.predict_bbox(
            x, metas, rpn_results_list, self.test_cfg, rescale
        )
        if self.with_mask:
            results = self.predict_mask(x, metas, results, rescale)
        for result in results:
            result.bboxes = to_edges(result.bboxes)
        return results

    def predict_mask(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict],
        results_list: list,
        rescale: bool = False,
    ) -> list:
        """Add masks. With `rescale`, boxes are those of the image file."""
        boxes = [result.bboxes for result in results_list]
        if rescale:
            boxes = [
                b * b.new_tensor(meta['scale_factor']).repeat(2)
                for b, meta in zip(boxes, batch_img_metas, strict=True)
            ]
        rois = bbox2roi(boxes)
        threshold = self.test_cfg.mask_thr_binary
        if not len(rois):
            return empty_instances(
                batch_img_metas,
                rois.device,
                task_type='mask',
                instance_results=results_list,
                mask_thr_binary=threshold,
            )
        logits = self._mask_forward(x, rois)['mask_preds']
        chunks = logits.split([len(b) for b in boxes])
        for result, chunk, meta in zip(
            results_list, chunks, batch_img_metas, strict=True
        ):
            shape = meta['ori_shape' if rescale else 'img_shape'][:2]
            channel = result.labels
            if self.mask_head.class_agnostic:
                channel = channel * 0
            own = chunk[range(len(chunk)), channel].sigmoid()
            result.masks = paste_masks(own, result.bboxes, shape, threshold)
        return results_list
