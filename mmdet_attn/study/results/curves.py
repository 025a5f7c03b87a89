"""Plot loss, learning rate and AP over a training, from its logs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet_attn.study.results.compare import KINDS, Comparison
from mmdet_attn.study.results.logs import AP_KEYS, read_scalars

# Okabe and Ito's, which colour-blind people can tell apart.
COLOURS = (
    '#0072B2',
    '#D55E00',
    '#009E73',
    '#CC79A7',
    '#E69F00',
    '#56B4E9',
    '#000000',
)
# The facts that decide about the learning rate at an epoch.
RATE = ('learning rate', 'schedule', 'warm-up')


def plot_curves(work_dir: str | Path, file: str | Path) -> Path:
    """Plot loss and its parts, and AP, of one training to a PNG."""
    train, val = read_scalars(work_dir)
    figure, (left, right) = _canvas(1, 2)
    at = [r['at'] for r in train]
    left.plot(at, [r['loss'] for r in train], color='black', label='total')
    for part in (k for k in train[-1] if k.startswith('loss_')):
        left.plot(at, [r.get(part) for r in train], lw=1, label=part)
    left.set(ylabel='loss', title='training loss')
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    for key in AP_KEYS:
        points = [(r['step'], r[key]) for r in val if key in r]
        if points:
            label = key.removeprefix('coco/').replace('_mAP', ' AP')
            right.plot(*zip(*points, strict=True), marker='o', label=label)
            right.annotate(
                f'{points[-1][1]:.3f}',
                points[-1],
                (-28, 8),
                textcoords='offset points',
            )
    right.set(ylabel='AP (IoU 0.50 to 0.95)', title='validation', ylim=(0, 1))
    right.legend(frameon=False, loc='upper left')
    return _save(figure, file)


def plot_comparison(compared: Sequence[Comparison], file: str | Path) -> Path:
    """Plot several trainings into the same axes, with the paper's AP."""
    kinds = [k for k in KINDS if any(c.training.ap[k] for c in compared)]
    rows = 2 if len(kinds) == 2 else 1
    figure, axes = _canvas(rows, (2 + len(kinds)) // rows)
    loss, rate, *results = axes.flat
    drawn: set[str] = set()
    dashes = _dashes(compared)
    for number, each in enumerate(compared):
        training, paper = each.training, each.paper
        colour = COLOURS[number % len(COLOURS)]
        # Where the colours begin anew, lines are dash-dotted.
        line = dict(color=colour, ls='-' if number < len(COLOURS) else '-.')
        at = [r['at'] for r in training.train]
        loss.plot(at, [r['loss'] for r in training.train], lw=1, **line)
        rates = [r.get('lr', math.nan) for r in training.train]
        rate.plot(at, rates, lw=2, **(line | {'ls': dashes[number]}))
        label = training.name.replace('$', r'\$') + (
            '' if at else ' (nothing logged yet)'
        )
        loss.plot([], [], label=label, **line)
        for kind, panel in zip(kinds, results, strict=False):
            points = sorted((e, ap.ap) for e, ap in training.ap[kind].items())
            panel.plot(*zip(*points, strict=True), marker='o', **line)
            row = f'{training.identity.row} {kind}'
            if points and kind in paper and row not in drawn:
                drawn.add(row)
                panel.axhline(paper[kind].ap, lw=1.2, ls='--', color=colour)
    if drawn:
        label = "the paper's AP of the same colour's row"
        loss.plot([], [], color='grey', ls='--', label=label)
    loss.set(ylabel='loss', title='training loss')
    rate.set(ylabel='learning rate', title='learning rate', yscale='log')
    for kind, panel in zip(kinds, results, strict=False):
        panel.set(ylabel='AP in percent', title=f'{KINDS[kind]} AP')
    figure.legend(
        loc='outside lower center', ncols=2, frameon=False, fontsize='small'
    )
    return _save(figure, file)


def _dashes(compared: Sequence[Comparison]) -> list[tuple]:
    """Line styles with which equal learning rates stay visible."""
    keys = [
        tuple(each.training.facts[fact] for fact in RATE) for each in compared
    ]
    styles: list[tuple] = []
    for number, key in enumerate(keys):
        others, before = keys.count(key) - 1, keys[:number].count(key)
        styles.append((4 * before, (4, 4 * others) if others else ()))
    return styles


def _canvas(rows: int, columns: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    return plt.subplots(
        rows,
        columns,
        figsize=(5 * columns, 4 * rows),
        layout='constrained',
        sharex=True,
    )


def _save(figure: Any, file: str | Path) -> Path:
    from matplotlib import pyplot as plt

    for axes in figure.axes:
        axes.set_xlabel('epoch')
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return Path(file)
