"""mmdet's CocoMetric with a faster engine and a report by class."""

import os.path as osp
import tempfile
from collections import OrderedDict
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import load
from mmengine.logging import MMLogger

from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.engine import find_evaluator
from mmdet_attn.evaluation.report import statistics, table

# mmdet's names of the statistics, in pycocotools' order.
NAMES = (
    'mAP',
    'mAP_50',
    'mAP_75',
    'mAP_s',
    'mAP_m',
    'mAP_l',
    'AR@100',
    'AR@300',
    'AR@1000',
    'AR_s@1000',
    'AR_m@1000',
    'AR_l@1000',
)


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """`mmdet.CocoMetric`, several times faster.

    Arguments, names and numbers are those of `mmdet.CocoMetric`, with two
    corrections:

    - AP per class goes by category id. mmdet mixes up the names if the
      annotation file does not list its categories in the order of their ids.
    - `iou_thrs` may be a number or a list, as in a config. With those mmdet
      fails at the end of the evaluation.

    After an evaluation, `report` has every statistic in full precision, for
    all classes and for each class. A statistic is None if there is no object
    to find.

    Args:
        args: Arguments of `mmdet.CocoMetric`.
        backend: `'faster'` (faster-coco-eval) or `'pycocotools'`.
        kwargs: Arguments of `mmdet.CocoMetric`.

    Raises:
        InputError: The backend is unknown or not installed, there are fewer
            than three `proposal_nums`, a metric item is unknown, or an
            annotation has no `area` or `iscrowd`.
    """

    _coco_api: Any
    cat_ids: Any
    img_ids: Any
    iou_thrs: Any

    def __init__(
        self, *args: Any, backend: str = 'faster', **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.iou_thrs = np.atleast_1d(self.iou_thrs)
        self.backend = backend
        self.evaluator = find_evaluator(backend, self.use_mp_eval)
        self.report: dict[str, Any] = {}
        if not self.format_only and set(self.metrics) - {'proposal_fast'}:
            self._check()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics, named and rounded as in mmdet."""
        logger = MMLogger.get_current_instance()
        truths, predictions = zip(*results, strict=True)
        found: dict[str, float] = OrderedDict()
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or osp.join(folder, 'results')
            if self._coco_api is None:
                logger.info('Converting ground truth to coco format...')
                self._coco_api = COCO(self.gt_to_coco_json(truths, prefix))
            if self.cat_ids is None:
                self.cat_ids = self._coco_api.get_cat_ids(
                    cat_names=self.dataset_meta['classes']
                )
            if self.img_ids is None:
                self.img_ids = self._coco_api.get_img_ids()
            files = self.results2json(predictions, prefix)
            if self.format_only:
                logger.info(f'results are saved in {osp.dirname(prefix)}')
                return found
            self.report = {
                'backend': self.backend,
                'images': len(self.img_ids),
                'max_dets': self.proposal_nums,
            }
            for metric in self.metrics:
                logger.info(f'Evaluating {metric} ({self.backend})...')
                if metric == 'proposal_fast':
                    found.update(self._fast_recalls(predictions))
                    continue
                if metric not in files:
                    raise KeyError(f'{metric} is not in results')
                detections = load(files[metric])
                if not detections:
                    logger.error(
                        'The testing results of the whole dataset is empty.'
                    )
                    break
                found.update(self._evaluate(metric, detections))
        return found

    def _evaluate(self, metric: str, detections: list) -> dict[str, float]:
        """Evaluate one of bbox, segm and proposal."""
        logger = MMLogger.get_current_instance()
        kind = 'bbox' if metric == 'proposal' else metric
        if kind == 'segm':
            for detection in detections:
                # pycocotools would take the area of the box.
                detection.pop('bbox')
        run = self.evaluator(
            self._coco_api, self._coco_api.loadRes(detections), kind
        )
        run.params.catIds = self.cat_ids
        run.params.imgIds = self.img_ids
        run.params.maxDets = list(self.proposal_nums)
        run.params.iouThrs = self.iou_thrs
        if metric == 'proposal':
            run.params.useCats = 0
        run.evaluate()
        run.accumulate()
        run.summarize()
        stats = dict(zip(NAMES, run.stats, strict=False))
        report: dict[str, Any] = {'all': statistics(run)}
        self.report[metric] = report
        if metric == 'proposal':
            items = self.metric_items or NAMES[6:]
            return {item: float(f'{stats[item]:.3f}') for item in items}
        report['classes'] = {
            self._coco_api.cats[category]['name']: statistics(run, k)
            for k, category in enumerate(run.params.catIds)
        }
        found = {}
        if self.classwise:
            logger.info('\n' + table(metric, report))
            for name, row in report['classes'].items():
                ap = float('nan') if row['AP'] is None else row['AP']
                found[f'{name}_precision'] = round(ap, 3)
        for item in self.metric_items or NAMES[:6]:
            found[f'{metric}_{item}'] = float(f'{round(stats[item], 3)}')
        line = ' '.join(f'{ap:.3f}' for ap in run.stats[:6])
        logger.info(f'{metric}_mAP_copypaste: {line}')
        return found

    def _fast_recalls(self, predictions) -> dict[str, float]:
        """The recall of proposals, computed by mmdet itself."""
        logger = MMLogger.get_current_instance()
        recalls = self.fast_eval_recall(
            predictions, self.proposal_nums, self.iou_thrs, logger=logger
        )
        found = {
            f'AR@{count}': recall
            for count, recall in zip(self.proposal_nums, recalls, strict=True)
        }
        logger.info(''.join(f'\n{k}\t{v:.4f}' for k, v in found.items()))
        return found

    def _check(self) -> None:
        """Refuse what would fail after hours of inference."""
        if len(self.proposal_nums) < 3:
            raise InputError(
                'proposal_nums needs three numbers of detections, as in '
                f'(100, 300, 1000), got {tuple(self.proposal_nums)}.'
            )
        for item in self.metric_items or ():
            if item not in NAMES:
                raise InputError(
                    f'metric_items: {item!r} is none of {", ".join(NAMES)}.'
                )
        content = self._coco_api.dataset if self._coco_api else {}
        for annotation in content.get('annotations', ()):
            for key in ('area', 'iscrowd'):
                if not isinstance(annotation.get(key), (int, float)):
                    raise InputError(
                        f'annotation {annotation["id"]} has no number for '
                        f"{key!r}, which COCO's evaluation needs: write the "
                        'area of the mask or box, and iscrowd 0 or 1.'
                    )
