"""Write a comparison as Markdown."""

from collections.abc import Sequence

from mmdet_attn.errors import printable
from mmdet_attn.study.results.compare import KINDS, Comparison
from mmdet_attn.study.results.differences import Difference
from mmdet_attn.study.results.paper import AP
from mmdet_attn.study.results.recipe import NOT_STATED, RECIPE, recipe

HEADS = ('training', 'epoch', 'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
PAPER = 'the paper'
CAVEAT = (
    'Compare gains: the baselines of MMDetection 3.x are 0.3 to 1.0 AP above '
    "the paper's, whose losses, anchors and RoIAlign were those of 2019. AP "
    'is logged to 0.1, so each gain is known to 0.1 either way.'
)


def markdown(compared: Sequence[Comparison], picture: str = '') -> str:
    """Tables of AP and of gains, and what each training is.

    Args:
        compared: The trainings.
        picture: Path of the plot, relative to the Markdown file.
    """
    parts = ['## Results beside the paper']
    for kind, word in KINDS.items():
        parts += _table(f'{word} AP in percent', _results(compared, kind))
        parts += _table(
            f'{word} AP, gain over the baseline beside it',
            _gains(compared, kind),
        )
    parts.append(CAVEAT)
    if picture:
        parts.append(f'![Loss, learning rate and AP over epochs](<{picture}>)')
    for each in compared:
        parts += [f'### {_escape(each.training.name)}', '\n'.join(_list(each))]
    return '\n\n'.join(parts) + '\n'


def _results(compared: Sequence[Comparison], kind: str) -> list[list[str]]:
    rows = []
    for each in compared:
        training, ap = each.training, each.result(kind)
        if ap is not None:
            epoch = f'{max(training.ap[kind])} of {training.max_epochs}'
            rows.append([training.name, epoch, *_cells(ap)])
        elif kind == 'bbox':
            rows.append([training.name, 'no AP yet', *[''] * len(AP._fields)])
        if kind in each.paper and (ap is not None or kind == 'bbox'):
            rows.append([PAPER, '12 of 12', *_cells(each.paper[kind])])
    return rows


def _gains(compared: Sequence[Comparison], kind: str) -> list[list[str]]:
    rows = []
    for each in compared:
        gain = each.gain
        if gain is not None and kind in gain.ap:
            cells = _cells(gain.ap[kind], '+')
            rows.append([each.training.name, str(gain.epoch), *cells])
            if kind in gain.paper:
                rows.append([PAPER, '12', *_cells(gain.paper[kind], '+')])
    return rows


def _cells(ap: AP, sign: str = '') -> list[str]:
    return ['-' if value is None else f'{value:{sign}.1f}' for value in ap]


def _table(title: str, rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    align = ['---', '---', *['--:'] * len(AP._fields)]
    cells = [HEADS, align, *([_escape(c) for c in row] for row in rows)]
    text = '\n'.join(f'| {" | ".join(row)} |' for row in cells)
    return [f'**{title[0].upper()}{title[1:]}**', text]


def _list(each: Comparison) -> list[str]:
    training, gain = each.training, each.gain
    lines = [training.identity.title, *each.notes]
    found = [f'- {_escape(line)}' for line in lines]
    if each.on_coco:
        found += _differing(PAPER, each.differs)
    if gain is not None:
        # The paper's SE and ECA started from weights trained with them.
        row = recipe(training.identity.row)
        start = "attention's start"
        own = row.get(start) == training.facts[start]
        found += _differing(gain.baseline.name, gain.differs, own)
    return found


def _differing(
    other: str, differs: list[Difference], own_weights: bool = False
) -> list[str]:
    if not differs:
        apart = '' if other == PAPER else ', attention apart'
        return [f'- set up as {_escape(other)}{apart}']
    found = [f'- differs from {_escape(other)} in:']
    for what, here, there in differs:
        line = f'{what}: {here}; {other}: {there}'
        if other == PAPER and what in NOT_STATED and there == RECIPE[what]:
            line += " (MMDetection's default then)"
        elif other != PAPER and what == 'weights' and own_weights:
            line += ' (so in the paper)'
        found.append(f'    - {_escape(line)}')
    return found


def _escape(text: str) -> str:
    """Escape the characters of a name or path that Markdown uses."""
    text = printable(text).replace('\n', ' ')
    for sign in '\\|*_<`[':
        text = text.replace(sign, f'\\{sign}')
    return text
