"""pycocotools' evaluation with the inner loops of faster-coco-eval."""

from math import isfinite

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools.cocoeval import COCOeval

from mmdet_attn.collection import no_collection
from mmdet_attn.errors import InputError


class FasterCOCOeval(COCOeval):
    """`pycocotools.cocoeval.COCOeval`: the same numbers, in less time.

    pycocotools does what decides about the numbers: index, results, polygons
    to masks, and the summary. (In its summary, faster-coco-eval takes AP at
    `maxDets[-1]` instead of 100.) faster-coco-eval does what takes time:
    overlaps, matching and accumulation.

    faster-coco-eval gets plain records, numbered from 1. It treats negative,
    fractional and text ids, other keys (`drop`, `rle`) and `useCats = 0`
    differently from pycocotools. An annotation with the id 0 keeps it:
    pycocotools counts a match with it as no match.

    Raises:
        InputError: A score or a box is not a number. The two engines would
            differ.
    """

    def evaluate(self) -> None:
        p = self.params
        p.imgIds = np.unique(p.imgIds).tolist()
        if p.useCats:
            p.catIds = np.unique(p.catIds).tolist()
        p.maxDets = sorted(p.maxDets)
        self._prepare()
        engine = COCOeval_faster(
            self._dataset(self._gts), self._dataset(self._dts), p.iouType
        )
        engine.params.imgIds = list(range(len(p.imgIds)))
        engine.params.catIds = list(range(len(p.catIds) if p.useCats else 1))
        for name in ('maxDets', 'iouThrs', 'recThrs', 'areaRng', 'areaRngLbl'):
            setattr(engine.params, name, getattr(p, name))
        with no_collection():
            engine.evaluate()
        engine.accumulate()
        self.eval = engine.eval

    def accumulate(self, p=None) -> None:
        """Do nothing: `evaluate` has done it in the same pass."""

    def _dataset(self, found: dict[tuple, list[dict]]) -> COCO:
        """Annotations or detections, in the order of pycocotools."""
        p = self.params
        row = {image: i for i, image in enumerate(p.imgIds)}
        rank = {category: k for k, category in enumerate(p.catIds)}
        shape = 'bbox' if p.iouType == 'bbox' else 'segmentation'
        records: list[dict] = []
        wanted = [
            (row[image], rank[category], image, category)
            for image, category in found
            if image in row and category in rank
        ]
        for i, k, image, category in sorted(wanted):
            for one in found[image, category]:
                record = dict(
                    id=0 if one['id'] == 0 else len(records) + 1,
                    image_id=i,
                    category_id=k if p.useCats else 0,
                    area=one['area'],
                    iscrowd=int(one['iscrowd']),
                    score=one.get('score', 0.0),
                )
                record[shape] = one[shape]
                numbers = one['bbox'] if shape == 'bbox' else ()
                if not isfinite(sum(numbers)) or np.isnan(record['score']):
                    raise InputError(
                        f'image {image}: a score or a box is not a number, '
                        f'{numbers or record["score"]}. Has the training '
                        'diverged? --eval-backend pycocotools accepts '
                        'it.'
                    )
                records.append(record)
        images = [
            dict(self.cocoGt.imgs[image], id=i) for image, i in row.items()
        ]
        categories = [dict(id=k) for k in rank.values()]
        return COCO(
            dict(images=images, categories=categories, annotations=records)
        )
