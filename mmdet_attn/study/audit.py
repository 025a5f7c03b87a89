"""Does the attention of a detector attend? Evaluate it with replacements."""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any

import torch
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.look.gauge import SHARES
from mmdet_attn.look.views import stage_of
from mmdet_attn.study.effects import GatePart, Part, parts_of, using
from mmdet_attn.study.matches import Difference, bootstrap_differences
from mmdet_attn.study.verdict import TOLERANCE, moved, signed, verdict

# What is done, in the order of the tables.
EFFECTS = {
    'trained': 'as trained',
    'map': 'mean map',
    'scalar': 'one scalar each',
    'removed': 'removed',
    'shuffled': 'map of another image',
}
ALL = 'all'


def find_parts(detector: nn.Module) -> tuple[list[Part], dict[str, str]]:
    """As `parts_of`, for a detector.

    Raises:
        InputError: There is nothing to audit.
    """
    parts, others = parts_of(detector)
    if not parts:
        why = ''.join(f' {name}: {reason}.' for name, reason in others.items())
        raise InputError(
            f'This {type(detector).__name__} has no attention to audit.{why} '
            'Give a config with plugins, such as '
            'configs/faster_rcnn_r50_eca.py, and weights trained with it.'
        )
    return parts, others


class Audit:
    """Evaluates a detector as trained and with replacements.

    Args:
        detector: A detector in eval mode.
        evaluation: An `Evaluation`.
        stages: Whether to go through the stages, too.

    Attributes:
        groups: The parts of each group, by its name.
        passes: How many times the images are evaluated.
    """

    def __init__(
        self, detector: Any, evaluation: Any, stages: bool = True
    ) -> None:
        self.detector, self.evaluation = detector, evaluation
        self.parts, self.others = find_parts(detector)
        self.groups: dict[str, list[Part]] = {ALL: self.parts}
        for part in self.parts if stages else ():
            self.groups.setdefault(stage_of(part.name), []).append(part)
        if len(self.groups) == 2:  # one stage is all
            self.groups.popitem()
        self.passes = 1 + sum(
            len([*_effects(parts)]) for parts in self.groups.values()
        )

    def run(
        self,
        step: Callable[[int], None] = lambda images: None,
        show: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """Evaluate all replacements.

        Args:
            step: Called after each batch with its number of images.
            show: Called before each evaluation with what it is.

        Returns:
            What was found, as JSON can hold it.
        """
        show(EFFECTS['trained'])
        with using(self.parts, 'measured'):
            trained, matches = self._evaluate(step, keep=True)
            for part in self.parts:
                part.finish()
        silent = [p for p in self.parts if not p.ran]
        for part in silent:
            self.others[part.name] = 'it does not run in an evaluation'
        if silent == self.parts:
            raise InputError(
                'No attention of this detector runs in an evaluation: '
                f'{", ".join(self.others)}.'
            )
        groups = []
        for name, members in self.groups.items():
            parts = [part for part in members if part not in silent]
            ap = {'trained': trained}
            intervals: dict[str, dict] = {}
            for effect in _effects(parts):
                show(f'{name}: {EFFECTS[effect]}')
                chosen = [part for part in parts if effect in part.effects]
                with using(chosen, effect):
                    ap[effect], found = self._evaluate(step, name == ALL)
                intervals[effect] = _intervals(found, matches)
            if parts:
                groups.append(_group(name, parts, ap, intervals))
        return {
            'images': self.evaluation.images,
            'tolerance': TOLERANCE,
            'groups': groups,
            'parts': [_facts(p) for p in self.parts if p not in silent],
            'not_audited': self.others,
        }

    def time(self) -> dict[str, Any]:
        """Time a batch without the parts against one with them."""
        from mmdet_attn.cost.timing import time_pair

        batch = next(iter(self.evaluation.loader))

        def run() -> None:
            with torch.no_grad():
                self.detector.test_step(batch)

        def run_without() -> None:
            with using(self.parts, 'removed'):
                run()

        return time_pair(run_without, run)

    def _evaluate(self, step: Callable[[int], None], keep: bool) -> tuple:
        def next_batch() -> None:
            for part in self.parts:
                part.next_batch()

        return self.evaluation.run(self.detector, step, next_batch, keep)


def _effects(parts: Sequence[Part]) -> Iterator[str]:
    """The replacements that at least one of the parts has."""
    for effect in EFFECTS:
        if any(effect in part.effects for part in parts):
            yield effect


def _facts(part: Part) -> dict[str, Any]:
    """A row of the table of parts."""
    row: dict[str, Any] = {
        'name': part.name,
        'type': type(part.module).__name__,
        'stage': stage_of(part.name),
    }
    if not isinstance(part, GatePart):
        return row
    gauge = part.gauge
    parts = gauge.parts(part.alpha)
    ends = [1 + part.alpha * (g - 1) for g in (gauge.low, gauge.high)]
    return row | {
        'alpha': part.alpha if part.has_alpha else None,
        'mean': part.factors.mean().item(),
        'low': min(ends),
        'high': max(ends),
        'image_std': parts['image'] ** 0.5,
        'saturation': gauge.saturation,
        'shares': shares([part]),
    }


def shares(parts: Sequence[Part]) -> dict[str, float] | None:
    """The shares of E[(F - 1)²], summed over gates. None if all F are 1."""
    each = [
        part.gauge.parts(part.alpha)
        for part in parts
        if isinstance(part, GatePart)
    ]
    sums = {key: sum(one[key] for one in each) for key in SHARES}
    total = sum(sums.values())
    return {k: v / total for k, v in sums.items()} if total else None


def _intervals(found: dict, trained: dict) -> dict[str, Difference]:
    """By metric, how much a change of AP depends on the images."""
    made = {
        metric: bootstrap_differences(matches, trained[metric])
        for metric, matches in found.items()
        if metric in trained
    }
    # Where few images have objects, a choice of images may have none.
    return {key: one for key, one in made.items() if isfinite(one.low)}


def _group(
    name: str, parts: list[Part], ap: dict, intervals: dict
) -> dict[str, Any]:
    kind, effect, sentence = verdict(parts, ap, intervals)
    if effect and (found := intervals[effect].get(moved(ap, effect))):
        _, low, high = found
        sentence += (
            f' Over choices of images by chance, 95 % of these changes lie '
            f'between {signed(100 * low)} and {signed(100 * high)}.'
        )
    return {
        'name': name,
        'parts': [part.name for part in parts],
        'ap': ap,
        'intervals': {
            effect: {metric: one._asdict() for metric, one in found.items()}
            for effect, found in intervals.items()
        },
        'shares': shares(parts),
        'verdict': kind,
        'sentence': sentence,
    }
