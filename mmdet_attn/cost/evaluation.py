"""How long COCO evaluation takes with each engine, and that they agree."""

import contextlib
import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.config import BACKENDS

TOLERANCE = 1e-9


@dataclass(frozen=True)
class EvalSpeed:
    """Seconds of every run, by backend; what was evaluated."""

    iou_type: str
    images: int
    annotations: int
    detections: int
    seconds: Mapping[str, tuple[float, ...]]
    difference: float  # the largest, of all statistics and curves

    @property
    def medians(self) -> dict[str, float]:
        return {name: median(runs) for name, runs in self.seconds.items()}

    @property
    def spreads(self) -> dict[str, float]:
        """Slowest minus fastest run, as a part of the median."""
        return {
            name: (max(runs) - min(runs)) / median(runs)
            for name, runs in self.seconds.items()
        }

    @property
    def ratio(self) -> float:
        """How many times faster than pycocotools, of medians."""
        return self.medians['pycocotools'] / self.medians['faster']


def replicate(
    truth: dict, detections: list[dict], images: int
) -> tuple[dict, list[dict]]:
    """As many copies of a pair, under new ids, as ``images`` asks for."""
    copies = -(-images // len(truth['images']))
    grown: dict = {**truth, 'images': [], 'annotations': []}
    found = []
    for copy in range(copies):
        start = copy * len(truth['images']) + 1
        ids = {o['id']: start + i for i, o in enumerate(truth['images'])}
        for image in truth['images']:
            grown['images'].append({**image, 'id': ids[image['id']]})
        for one in truth['annotations']:
            number = len(grown['annotations']) + 1
            image = ids[one['image_id']]
            grown['annotations'].append(
                {**one, 'id': number, 'image_id': image}
            )
        found += [{**o, 'image_id': ids[o['image_id']]} for o in detections]
    return grown, found


def evaluate(
    truth: dict, detections: list[dict], iou_type: str, backend: str
) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds from parsed files to statistics, as a user waits for them.

    Args:
        truth: Content of an annotation file; changed by pycocotools.
        detections: Content of a results file; changed, too.
        iou_type: ``bbox`` or ``segm``.
        backend: ``faster`` or ``pycocotools``.

    Returns:
        The time, and ``stats``, ``precision`` and ``recall``.
    """
    from pycocotools.coco import COCO

    from mmdet_attn.evaluation.engine import find_evaluator

    evaluator = find_evaluator(backend)
    if iou_type == 'segm':
        for detection in detections:
            detection.pop('bbox', None)  # as CocoMetric: areas of the masks
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        run = evaluator(coco, coco.loadRes(detections), iou_type)
        run.params.maxDets = [100, 300, 1000]
        run.evaluate()
        run.accumulate()
        run.summarize()
        seconds = time.perf_counter() - start
    arrays = {name: run.eval[name] for name in ('precision', 'recall')}
    return seconds, {'stats': np.array(run.stats), **arrays}


def compare(
    gt_json: str | Path,
    dt_json: str | Path,
    iou_type: str,
    images: int = 2000,
    runs: int = 5,
) -> EvalSpeed:
    """Time both engines on a pair of files, replicated, run by run in turn.

    Raises:
        InputError: The two differ by more than 1e-9 in any statistic.
    """
    truth = json.loads(Path(gt_json).read_text(encoding='utf-8'))
    found = json.loads(Path(dt_json).read_text(encoding='utf-8'))
    truth, found = replicate(truth, found, images)
    # Every run parses its own copy: both engines write into what they get.
    texts = json.dumps(truth), json.dumps(found)
    seconds: dict[str, tuple[float, ...]] = dict.fromkeys(BACKENDS, ())
    difference = 0.0
    for _ in range(runs):
        results = []
        for backend in BACKENDS:
            truth, found = (json.loads(text) for text in texts)
            took, result = evaluate(truth, found, iou_type, backend)
            seconds[backend] += (took,)
            results.append(result)
        for name, ours in results[0].items():
            gap = np.abs(ours - results[1][name]).max()
            difference = max(difference, float(gap))
            if not gap <= TOLERANCE:
                raise InputError(
                    f'{dt_json}: {name} of {iou_type} differs by {gap} '
                    f'between {" and ".join(BACKENDS)}.'
                )
    return EvalSpeed(
        iou_type,
        len(truth['images']),
        len(truth['annotations']),
        len(found),
        seconds,
        difference,
    )
