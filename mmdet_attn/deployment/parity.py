"""Compare an exported detector with the one that it was made of."""

from time import perf_counter
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmdet_attn.deployment.runtime import OnnxDetector
from mmdet_attn.study.evaluation import Evaluation

NEAR = 0.01  # pixels


class Recorder:
    """A detector that keeps what it finds, and the time that it takes."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector
        self.found: list[Any] = []
        self.seconds = 0.0

    def test_step(self, batch: Any) -> list:
        start = perf_counter()
        samples = self.detector.test_step(batch)
        self.seconds += perf_counter() - start
        self.found += [sample.pred_instances for sample in samples]
        return samples


def differences(one: Any, other: Any) -> tuple[int, Tensor, Tensor]:
    """Compare the detections of an image.

    Returns:
        How many of either have no partner, a box of the same label that is
            nearer than `NEAR`, and how far boxes and scores of the others
            are from their partners'.
    """
    apart = (one.bboxes[:, None] - other.bboxes).abs().amax(2)
    apart[one.labels[:, None] != other.labels] = torch.inf
    rows, columns = (apart <= NEAR).nonzero().T
    alone = len(one) + len(other) - len(rows.unique()) - len(columns.unique())
    scores = (one.scores[rows] - other.scores[columns]).abs()
    return alone, apart[rows, columns], scores


def compare(cfg: Config, detector: Any, file: str) -> dict[str, Any]:
    """Evaluate both on the test set of a config, an image at a time.

    Returns:
        What differs, AP of both and the milliseconds that an image takes.
    """
    cfg.test_dataloader.batch_size = 1  # padding depends on the batch
    evaluation = Evaluation(cfg)
    one, other = Recorder(detector), Recorder(OnnxDetector(file))
    aps = [evaluation.run(each)[0] for each in (one, other)]
    pairs = [
        differences(*pair) for pair in zip(one.found, other.found, strict=True)
    ]
    alone, boxes, scores = zip(*pairs, strict=True)
    return {
        'images': evaluation.images,
        'detections': sum(map(len, one.found)),
        'alone': sum(alone),
        'box': max(torch.cat(boxes).tolist(), default=0.0),
        'score': max(torch.cat(scores).tolist(), default=0.0),
        'AP': aps,
        'ms': [1000 * r.seconds / evaluation.images for r in (one, other)],
    }
