"""What attention does, in a sentence, from the AP of its replacements."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmdet_attn.study.effects import Part
from mmdet_attn.study.matches import Difference

# Two trainings on COCO that differ in the seed alone differ by about this.
TOLERANCE = 0.2  # points of AP
LEAST = 1.0  # points of AP: a detector below has learnt too little
Aps = dict[str, dict[str, float]]


class Verdict(NamedTuple):
    """A word for the rule, the replacement that decided, a sentence."""

    kind: str
    effect: str
    sentence: str


def verdict(
    parts: Sequence[Part], ap: Aps, intervals: Mapping[str, Mapping]
) -> Verdict:
    """Apply the rules, in the order of this function.

    A change counts where AP of boxes or of masks moves by more than
    `TOLERANCE`.

    Args:
        parts: The parts of a group.
        ap: AP by replacement and metric, as fractions.
        intervals: Those of the changes, by replacement and metric.
    """
    gates = [part for part in parts if 'map' in part.effects]
    count, noun = len(gates or parts), 'gate' if gates else 'module'
    several = count > 1
    these = f'These {count} {noun}s' if several else f'This {noun}'
    s, it, its = ('', 'they', 'their') if several else ('s', 'it', 'its')

    trained = 100 * max(ap['trained'].values())
    if trained < LEAST:
        text = (
            f'AP as trained is {trained:.1f}: the detector has learnt too '
            'little to say what its attention does.'
        )
        return Verdict('unknown', '', text)
    if abs(d := change(ap, 'removed')) <= TOLERANCE:
        do, them = ('do', 'them') if several else ('does', 'it')
        text = (
            f'{these} {do} nothing: AP changes by {signed(d)} without {them}.'
        )
        return Verdict('nothing', 'removed', text)
    if not gates:
        d = change(ap, 'shuffled')
        other = f'with what {it} add{s} in another image AP'
        if abs(d) <= TOLERANCE:
            text = (
                f'{these} add{s} nearly the same in all images: {other} '
                f'changes by {signed(d)}.'
            )
            return Verdict('fixed', 'shuffled', text)
        end = f'{other} {_moves(d)}.'
        if _unsure(intervals, ap, 'shuffled'):
            return Verdict('unsure', 'shuffled', f'{these} may attend: {end}')
        return _attends('shuffled', d, f'{these} attend{s}', end)
    one = 'one scalar each' if several else 'one scalar'
    gains = 'constant gains' if several else 'a constant gain'
    if abs(d := change(ap, 'scalar')) <= TOLERANCE:
        text = f'{these} act{s} as {gains}: {one} changes AP by {signed(d)}.'
        return Verdict('constant', 'scalar', text)
    scalar = signed(d)
    maps = 'fixed maps' if several else 'a fixed map'
    if abs(d := change(ap, 'map')) <= TOLERANCE:
        text = (
            f'{these} act{s} as {maps}, the same for every image: the mean '
            f'map changes AP by {signed(d)}, {one} by {scalar}.'
        )
        return Verdict('fixed', 'map', text)
    end = f'without {its} dependence on the image AP {_moves(d)}.'
    if _unsure(intervals, ap, 'map'):
        return Verdict('unsure', 'map', f'{these} may attend: {end}')
    return _attends('map', d, f'{these} attend{s}', end)


def _unsure(intervals: Mapping[str, Mapping], ap: Aps, effect: str) -> bool:
    """Whether the interval of a change holds zero, if it has one."""
    found: Difference | None = intervals.get(effect, {}).get(moved(ap, effect))
    return found is not None and found.low <= 0 <= found.high


def _attends(effect: str, d: float, start: str, end: str) -> Verdict:
    if d < 0:
        return Verdict('attends', effect, f'{start}: {end}')
    return Verdict('harms', effect, f'{start}, and AP is lower for it: {end}')


def change(ap: Aps, effect: str) -> float:
    """The change of AP in points; of boxes and masks the greater."""
    metric = moved(ap, effect)
    return 100 * (ap[effect][metric] - ap['trained'][metric])


def moved(ap: Aps, effect: str) -> str:
    """The metric that a replacement changes most."""
    trained = ap['trained']
    return max(trained, key=lambda m: abs(ap[effect][m] - trained[m]))


def signed(points: float) -> str:
    """A change in points, as +0.1 or 0.0."""
    text = f'{points:+.1f}'
    return text if float(text) else '0.0'


def _moves(points: float) -> str:
    verb = 'rises' if points > 0 else 'falls'
    return f'{verb} by {abs(points):.1f}'
