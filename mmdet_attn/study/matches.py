"""AP of any choice of images, from what an evaluation has matched."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmdet_attn.errors import InputError
from mmdet_attn.weights.save import sha256, write_bytes

NAME = 'matches.npz'
# As in pycocotools: the detections of an image that count, and the recalls.
DETECTIONS = 100
RECALLS = np.linspace(0, 1, 101)


@dataclass
class Matches:
    """The detections of an evaluation, and which of them are right.

    Detections are ordered by category, then by falling score, as in
    pycocotools. For objects of all sizes.

    Attributes:
        images: The ids of the $I$ images.
        objects: `(I, C)`, the number of objects to find.
        category: `(D,)`, the index of the category of each detection.
        image: `(D,)`, the index of its image.
        right: `(T, D)`, whether it finds an object at an IoU threshold.
        wrong: `(T, D)`, whether it finds none. One that finds a crowd is
            neither right nor wrong.
    """

    images: np.ndarray
    objects: np.ndarray
    category: np.ndarray
    image: np.ndarray
    right: np.ndarray
    wrong: np.ndarray


class Difference(NamedTuple):
    """A difference of two APs, and the ends of its interval."""

    difference: float
    low: float
    high: float


def matches_of(evaluator: Any) -> Matches:
    """What the evaluation of boxes or masks has matched.

    Args:
        evaluator: A `pycocotools.cocoeval.COCOeval` that has run, or one of
            its subclasses.
    """
    if not hasattr(evaluator, '_gts'):  # several processes had their own
        evaluator._prepare()
    p = evaluator.params
    images, categories = np.unique(p.imgIds), np.unique(p.catIds)
    known = {key for part in (evaluator._gts, evaluator._dts) for key in part}
    objects = np.zeros((len(images), len(categories)), np.int32)
    none = np.zeros((len(p.iouThrs), 0), bool)
    parts: list[tuple] = [
        (np.zeros(0, np.int16), np.zeros(0, np.int32), none, none)
    ]
    for k, category in enumerate(categories.tolist()):
        found, scores = [parts[0][1:]], [np.zeros(0)]
        for i, image in enumerate(images.tolist()):
            key = (image, category)
            if key not in known:
                continue
            evaluator.ious = {key: evaluator.computeIoU(*key)}
            one = evaluator.evaluateImg(*key, p.areaRng[0], DETECTIONS)
            if one is None:
                continue
            objects[i, k] = np.count_nonzero(one['gtIgnore'] == 0)
            scores.append(np.array(one['dtScores']))
            matched, counts = one['dtMatches'] != 0, ~one['dtIgnore']
            index = np.full(len(scores[-1]), i, np.int32)
            found.append((index, matched & counts, ~matched & counts))
        order = np.argsort(-np.concatenate(scores), kind='stable')
        image, right, wrong = _join(found)
        index = np.full(len(order), k, np.int16)
        parts.append((index, image[order], right[:, order], wrong[:, order]))
    return Matches(images, objects, *_join(parts))


def _join(parts: list[tuple]) -> list[np.ndarray]:
    return [np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)]


def write_matches(work_dir: str | Path, found: dict[str, Matches]) -> str:
    """Write the matches of boxes and masks in one step.

    Returns:
        The SHA-256 of the file.
    """
    buffer = io.BytesIO()
    arrays = {
        f'{kind}.{name}': array
        for kind, one in found.items()
        for name, array in vars(one).items()
    }
    np.savez_compressed(buffer, **arrays)
    write_bytes(Path(work_dir, NAME), buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def read_matches(work_dir: str | Path, digest: str | None) -> dict:
    """The matches of boxes and masks, by kind.

    Args:
        work_dir: The work directory of a training.
        digest: `matches` of its facts.

    Returns:
        A `Matches` for `'bbox'` and `'segm'`, if they were evaluated.
        Nothing if the file is not that of the last evaluation.
    """
    file = Path(work_dir, NAME)
    if not (digest and file.is_file() and sha256(file) == digest):
        return {}
    found: dict[str, dict] = {}
    with np.load(file) as arrays:
        for key, array in arrays.items():
            kind, _, name = key.partition('.')
            found.setdefault(kind, {})[name] = array
    return {kind: Matches(**one) for kind, one in found.items()}


def ap(matches: Matches, weights: np.ndarray | None = None) -> float | None:
    """AP as pycocotools computes it. None if there is no object to find.

    Args:
        matches: Those of an evaluation.
        weights: How often each image counts: once if left out.
    """
    if weights is None:
        weights = np.ones(len(matches.images), np.int32)
    value = float(aps(matches, weights[None])[0])
    return None if np.isnan(value) else value


def aps(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """AP of several choices of images. NaN if there is no object to find.

    Precision at a recall is the largest at this recall or a higher one. It
    changes at right detections only.

    Args:
        matches: Those of an evaluation.
        weights: `(N, I)`, how often each image counts in each choice.
    """
    weights = weights.astype(np.int32)
    objects = weights @ matches.objects
    count = matches.objects.shape[1]
    ends = np.searchsorted(matches.category, np.arange(count + 1))
    total = np.zeros(len(weights))
    for k in np.flatnonzero(matches.objects.any(axis=0)):
        part = slice(ends[k], ends[k + 1])
        each = weights[:, matches.image[part]]
        before = np.cumsum(each, axis=1)
        wanted = np.maximum(objects[:, k, None], 1)
        for right, wrong in zip(
            matches.right[:, part], matches.wrong[:, part], strict=True
        ):
            at, silent = np.flatnonzero(right), np.flatnonzero(~right & ~wrong)
            found = np.cumsum(each[:, at], axis=1)
            given = before[:, at]
            if silent.size:
                left_out = np.cumsum(each[:, silent], axis=1)
                left_out = np.pad(left_out, ((0, 0), (1, 0)))
                given = given - left_out[:, np.searchsorted(silent, at)]
            precision = found / (given + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = np.searchsorted(RECALLS, found / wanted, side='right')
            steps = np.diff(reached, axis=1, prepend=0)
            total += (best * steps).sum(axis=1)
    classes = (objects > 0).sum(axis=1)
    with np.errstate(invalid='ignore'):
        return total / (classes * len(matches.right) * len(RECALLS))


def bootstrap_differences(
    here: Matches,
    there: Matches,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The difference of two APs, with a paired bootstrap over images.

    Both evaluations take the same images of each resampling. The ends of the
    interval are percentiles of the differences.

    Raises:
        InputError: The two were not evaluated on the same images.
    """
    from scipy.stats import bootstrap

    if not (
        np.array_equal(here.images, there.images)
        and np.array_equal(here.objects, there.objects)
    ):
        raise InputError(
            'AP cannot be compared by image: the two trainings were not '
            'evaluated on the same images and annotations '
            f'({len(here.images)} and {len(there.images)} images). Evaluate '
            'both with the same --data-root.'
        )
    number = len(here.images)

    def difference(indices: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = np.atleast_2d(indices)
        weights = np.stack(
            [np.bincount(row, minlength=number) for row in rows]
        )
        found = aps(here, weights) - aps(there, weights)
        return found.reshape(indices.shape[:-1])

    every = np.arange(number)
    interval = bootstrap(
        (every,),
        difference,
        n_resamples=resamples,
        batch=50,
        vectorized=True,
        confidence_level=level,
        method='percentile',
        rng=np.random.default_rng(seed),
    ).confidence_interval
    ends = float(interval.low), float(interval.high)
    return Difference(float(difference(every)), *ends)
