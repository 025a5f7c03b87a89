"""mmdet's CocoMetric with a faster engine and a report by class."""

from typing import Any
from unittest import mock

import numpy as np
from mmdet.evaluation.metrics import CocoMetric
from mmdet.evaluation.metrics import coco_metric as mmdet_module
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from mmdet_attn.errors import InputError, printable
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

    Arguments, names and numbers are those of `mmdet.CocoMetric`, with three
    corrections:

    - AP per class goes by category id. mmdet mixes up the names if the
      annotation file does not list its categories in the order of their ids.
    - `iou_thrs` may be a number or a list, as in a config. With those mmdet
      fails at the end of the evaluation.
    - Annotations are numbered from 1 if one has the id 0, which stands for
      "no match" in pycocotools: what finds it would count as wrong.

    After an evaluation, `report` has every statistic in full precision, for
    all classes and for each class. A statistic is None if there is no object
    to find. With `keep = True`, `evaluators` then has what computed boxes and
    masks, for who needs the matches.

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
        self.keep = False
        self.evaluators: dict[str, Any] = {}
        if not self.format_only and set(self.metrics) - {'proposal_fast'}:
            self._check()
            self._number_from_one()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics, named and rounded as in mmdet."""
        logger = MMLogger.get_current_instance()
        logger.info(f'Evaluating {", ".join(self.metrics)} ({self.backend})')
        runs: list[Any] = []
        left_out = self._content.get('left_out', ())
        if left_out:
            images = len(self._content['images'])
            logger.warning(
                f'The results are those of {images} images: '
                f'{len(left_out)} bad ones are left out (--skip-bad-images).'
            )

        def make(*args: Any) -> Any:
            runs.append(self.evaluator(*args))
            return runs[-1]

        # mmdet names its engine in its module, and has no argument for it.
        # Its own table of classes mixes up their names.
        with (
            mock.patch.multiple(mmdet_module, COCOeval=make, COCOevalMP=make),
            mock.patch.object(self, 'classwise', False),
        ):
            found = super().compute_metrics(results)
        self.report, self.evaluators = {}, {}
        if self.format_only:
            return found
        self.report = {
            'backend': self.backend,
            'images': len(self.img_ids),
            'left_out': len(left_out),
            'max_dets': self.proposal_nums,
        }
        kinds = [kind for kind in self.metrics if kind != 'proposal_fast']
        for kind, run in zip(kinds, runs, strict=False):
            report: dict[str, Any] = {'all': statistics(run)}
            self.report[kind] = report
            if kind == 'proposal':
                continue
            if self.keep:
                self.evaluators[kind] = run
            report['classes'] = {
                self._coco_api.cats[category]['name']: statistics(run, k)
                for k, category in enumerate(run.params.catIds)
            }
            if self.classwise:
                logger.info('\n' + table(kind, report))
                for name, row in report['classes'].items():
                    ap = float('nan') if row['AP'] is None else row['AP']
                    found[f'{printable(name)}_precision'] = round(ap, 3)
        return found

    @property
    def _content(self) -> dict:
        return self._coco_api.dataset if self._coco_api else {}

    def _number_from_one(self) -> None:
        annotations = self._content.get('annotations', ())
        if any(x['id'] == 0 or isinstance(x['id'], str) for x in annotations):
            MMLogger.get_current_instance().info(
                'Annotations are numbered from 1 for the evaluation: one has '
                'the id 0 or text, which pycocotools takes for no match.'
            )
            for number, annotation in enumerate(annotations, 1):
                annotation['id'] = number
            self._coco_api.createIndex()

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
        for annotation in self._content.get('annotations', ()):
            for key in ('area', 'iscrowd'):
                if not isinstance(annotation.get(key), (int, float)):
                    raise InputError(
                        f'annotation {annotation["id"]} has no number for '
                        f"{key!r}, which COCO's evaluation needs: write the "
                        'area of the mask or box, and iscrowd 0 or 1.'
                    )
