"""Compare trainings with the paper and with their baselines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmdet_attn.errors import InputError
from mmdet_attn.study.results.differences import (
    OF_ATTENTION,
    Difference,
    all_differences,
    differences,
)
from mmdet_attn.study.results.images import COCO
from mmdet_attn.study.results.paper import AP, NOTES, paper_ap, paper_gain
from mmdet_attn.study.results.recipe import recipe
from mmdet_attn.study.results.training import Training, read_training

KINDS = {'bbox': 'box', 'segm': 'mask'}


@dataclass
class Gain:
    """The gain of a training over its baseline.

    Attributes:
        baseline: The baseline.
        differs: The settings that differ, without those of attention.
        epoch: The last epoch for which both have AP. None if there is none.
        ap: The gain at this epoch, by `'bbox'` and `'segm'`.
        paper: The paper's gain, if it has one.
    """

    baseline: Training
    differs: list[Difference]
    epoch: int | None = None
    ap: dict[str, AP] = field(default_factory=dict)
    paper: dict[str, AP] = field(default_factory=dict)


@dataclass
class Comparison:
    """One training, the paper's AP, and the gain.

    Attributes:
        training: The training.
        paper: The paper's AP for it, by `'bbox'` and `'segm'`.
        differs: The settings that differ from the paper's.
        gain: None for a baseline, and without a baseline.
        notes: What a reader must know.
        on_coco: Whether it was trained on COCO, as in the paper.
    """

    training: Training
    paper: dict[str, AP]
    differs: list[Difference]
    gain: Gain | None
    notes: list[str]
    on_coco: bool

    def result(self, kind: str) -> AP | None:
        """AP of the last epoch that was evaluated."""
        found = self.training.ap[kind]
        return found[max(found)] if found else None


def compare(work_dirs: Sequence[str | Path]) -> list[Comparison]:
    """Read work directories; compare each with the paper and its baseline.

    A baseline has the same detector, backbone and data set, and no attention.
    If there are several, the one whose settings differ least is taken.

    Raises:
        InputError: A folder is given twice, or cannot be read.
    """
    twice = Counter(Path(work_dir).resolve() for work_dir in work_dirs)
    for path, count in twice.items():
        if count > 1:
            raise InputError(f'{path} is given {count} times: once will do.')
    trainings = [read_training(work_dir) for work_dir in work_dirs]
    names = Counter(training.name for training in trainings)
    for training in trainings:
        if names[training.name] > 1:
            training.name = training.work_dir.resolve().as_posix()
    compared = [_compare(training, trainings) for training in trainings]
    return sorted(compared, key=lambda c: _order(c.training))


def _order(training: Training) -> tuple:
    """Sort key that puts a baseline before its trainings."""
    identity = training.identity
    return identity.detector, identity.backbone, identity.attention


def _on_coco(training: Training) -> bool:
    return training.facts['data set'].startswith(COCO)


def _compare(training: Training, others: list[Training]) -> Comparison:
    identity, coco = training.identity, _on_coco(training)
    paper: dict[str, AP] = {}
    for kind in KINDS if coco else ():
        if (found := paper_ap(identity.row, kind)) is not None:
            paper[kind] = found
    notes = list(training.notes)
    if not coco:
        data = training.facts['data set']
        notes.append(f'not comparable with the paper: trained on {data}')
    elif identity.row is None:
        notes.append('no row in the paper')
    elif identity.row in NOTES:
        notes.append(NOTES[identity.row])
    gain = _gain(training, others) if identity.attention else None
    if gain is None and identity.attention:
        notes.append(
            'no baseline was given (same detector, backbone and data set '
            'without attention), so no fair comparison can be made'
        )
    elif gain is not None:
        notes += _gain_notes(training, gain)
    return Comparison(
        training,
        paper,
        differences(training.facts, recipe(identity.row)),
        gain,
        notes,
        coco,
    )


def _gain(training: Training, others: list[Training]) -> Gain | None:
    def key(one: Training) -> tuple:
        return (
            one.identity.detector,
            one.identity.backbone,
            one.facts['data set'],
        )

    candidates = [
        (other, _against(training, other))
        for other in others
        if not other.identity.attention and key(other) == key(training)
    ]
    if not candidates:
        return None
    base, differs = min(candidates, key=lambda pair: len(pair[1]))
    gain = Gain(base, differs)
    common = training.ap['bbox'].keys() & base.ap['bbox'].keys()
    gain.epoch = max(common, default=None)
    for kind in KINDS:
        both = [t.ap[kind].get(gain.epoch or 0) for t in (training, base)]
        if both[0] is not None and both[1] is not None:
            gain.ap[kind] = both[0].minus(both[1])
        paper = paper_gain(training.identity.row, kind)
        if paper and _on_coco(training):
            gain.paper[kind] = paper
    return gain


def _against(training: Training, base: Training) -> list[Difference]:
    found = all_differences(
        (training.facts, training.cfg), (base.facts, base.cfg)
    )
    return [each for each in found if each.what not in OF_ATTENTION]


def _gain_notes(training: Training, gain: Gain) -> list[str]:
    base = gain.baseline
    if gain.epoch is None:
        return [f'no gain: {base.name} has no AP at the same epoch']
    if gain.epoch == training.max_epochs == base.max_epochs:
        return []
    note = f'the gain over {base.name} is that at epoch {gain.epoch}, the '
    note += 'last that both have'
    return [note + ("; the paper's is after 12" if gain.paper else '')]
