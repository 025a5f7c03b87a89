"""RetinaNet's choice of detections, as in MMDetection 1.x."""

import copy

from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_attn.mmdet1.boxes import to_edges


@MODELS.register_module()
class LegacyRetinaHead(RetinaHead):
    """A `RetinaHead` that predicts as in 1.x and trains as in 3.x.

    In each level, 1.x keeps the `nms_pre` anchors with the best scores, each
    with all its classes above the threshold. 3.x keeps `nms_pre` pairs of an
    anchor and a class. The results have the far corner of 3.x.
    """

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list,
        mlvl_priors: list[Tensor],
        img_meta: dict,
        cfg: ConfigDict | None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        cfg = copy.deepcopy(self.test_cfg if cfg is None else cfg)
        number = cfg.get('nms_pre', -1)
        scores, deltas, priors = [], [], []
        for score, delta, prior in zip(
            cls_score_list, bbox_pred_list, mlvl_priors, strict=True
        ):
            score = score.permute(1, 2, 0).reshape(-1, self.cls_out_channels)
            delta = delta.permute(1, 2, 0).reshape(-1, 4)
            if 0 < number < len(score):
                best = score.max(1).values.topk(number).indices
                score, delta, prior = score[best], delta[best], prior[best]
            # As if each chosen anchor were the only one of its position.
            scores.append(score.t().unsqueeze(-1))
            deltas.append(delta.t().unsqueeze(-1))
            priors.append(prior)
        cfg.nms_pre = sum(score.numel() for score in scores)
        result = super()._predict_by_feat_single(
            scores,
            deltas,
            score_factor_list,
            priors,
            img_meta,
            cfg,
            rescale,
            with_nms,
        )
        if with_nms:
            result.bboxes = to_edges(result.bboxes)
        return result
