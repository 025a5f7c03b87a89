"""Plots of results: differences, AP against cost, curves over epochs."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mmdet_attn.study.table import KINDS, Run

# Okabe and Ito's, which colour-blind people can tell apart. Markers and line
# styles tell more than these apart, and on paper.
COLOURS = (
    '#000000',
    '#0072B2',
    '#D55E00',
    '#009E73',
    '#CC79A7',
    '#E69F00',
    '#56B4E9',
)
MARKERS = 'osD^vP*X'
LINES = ('-', '--', '-.', ':')
TEXT: Any = {'text.parse_math': False}  # a folder may be named $x


def draw(results: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, bytes]:
    """All plots as SVG, by name. Those without anything to show are left out.

    Args:
        results: What `compare` returns for the runs.
        runs: The runs.
    """
    figures = {
        'differences': differences(results),
        'cost': cost(results),
        'curves': curves(results, runs),
    }
    return {name: _svg(f) for name, f in figures.items() if f is not None}


def _svg(figure: Figure) -> bytes:
    stream = BytesIO()
    with rc_context({'svg.hashsalt': 'mmdet_attn'}):
        figure.savefig(stream, format='svg', metadata={'Date': None})
    return stream.getvalue()


def _style(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each attention."""
    every = dict.fromkeys(o['attention'] for o in results['configurations'])
    return {
        name: {
            'color': COLOURS[number % len(COLOURS)],
            'marker': MARKERS[number % len(MARKERS)],
            'ls': LINES[number // len(COLOURS) % len(LINES)],
        }
        for number, name in enumerate(every)
    }


@rc_context(TEXT)
def differences(results: Mapping[str, Any]) -> Figure | None:
    """Differences to the baseline as intervals, with one dot for each seed."""
    every = results['configurations']
    kinds = [
        (name, title)
        for name, title in (('AP', 'box AP'), ('mask_AP', 'mask AP'))
        if any(name in one['differences'] for one in every)
    ]
    if not kinds:
        return None
    shown = [one for one in every if one['differences']]
    bases = {one['base'] for one in shown}
    labels = [
        one['attention'] if len(bases) == 1 else one['name'] for one in shown
    ]
    size = 4.6 * len(kinds) + 3.5, 1 + 0.42 * len(shown)
    figure = Figure(size, layout='constrained')
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (name, title) in zip(panels, kinds, strict=True):
        axes.axvline(0, color='0.4', lw=1)
        for y, one in enumerate(shown):
            if name in one['differences']:
                _interval(axes, y, one['differences'][name])
            if name in one['paper']:
                style = {'color': COLOURS[2], 'label': 'the paper'}
                axes.plot(one['paper'][name], y, 'd', zorder=3, **style)
        axes.set_xlabel(f'difference in {title} to no attention')
        axes.grid(axis='x', alpha=0.3)
    panels[0].set_yticks(range(len(shown)), labels)
    panels[0].set_ylim(len(shown) - 0.4, -0.6)
    _legend(figure, panels)
    return figure


def _interval(axes: Any, y: int, found: Mapping[str, Any]) -> None:
    label, fill, ends = 'mean, 95 % interval', COLOURS[1], None
    if found['seeds'] == 1:
        label, fill = 'one seed, interval over images', 'white'
    if found['low'] is None:
        label = 'one seed, no interval'
    else:
        mean = found['mean']
        ends = [[mean - found['low']], [found['high'] - mean]]
    style = {'color': COLOURS[1], 'mfc': fill, 'ms': 8, 'lw': 2.5}
    axes.errorbar(found['mean'], y, None, ends, 's', label=label, **style)
    if found['seeds'] > 1:
        places = [y + 0.22] * found['seeds']
        axes.plot(found['each'], places, '.', color='0.35', label='each seed')


@rc_context(TEXT)
def cost(results: Mapping[str, Any]) -> Figure | None:
    """Box AP over parameters, and over GFLOPs where they are known."""
    every = [one for one in results['configurations'] if 'AP' in one['ap']]
    costs = [
        cost
        for cost in (
            ('parameters', 'parameters in millions', 1e-6),
            ('gflops', 'GFLOPs', 1),
        )
        if any(one[cost[0]] is not None for one in every)
    ]
    if not costs:
        return None
    styles, panels = _style(results), []
    figure, grid = _grid(every, len(costs), sharey='row')
    for base, row in grid.items():
        for axes, (key, label, scale) in zip(row, costs, strict=True):
            panels.append(axes)
            for one in every:
                if one['base'] != base or one[key] is None:
                    continue
                found, style = one['ap']['AP'], styles[one['attention']]
                axes.errorbar(
                    *(one[key] * scale, found['mean'], found['sd']),
                    **(style | {'ls': 'none'}),
                    capsize=3,
                    ms=7,
                    label=one['attention'],
                )
            axes.set(title=base, xlabel=label)
            axes.ticklabel_format(useOffset=False)
            axes.margins(0.1)
        row[0].set_ylabel('box AP in percent')
    _legend(figure, panels, 'mean ± standard deviation')
    return figure


def _grid(
    every: Sequence[Mapping], columns: int, **options: Any
) -> tuple[Figure, dict[str, Any]]:
    """A figure with a row of panels for each base."""
    bases = list(dict.fromkeys(one['base'] for one in every))
    size = 4.4 * columns + 2.2, 3.4 * len(bases)
    figure = Figure(size, layout='constrained')
    grid = figure.subplots(len(bases), columns, squeeze=False, **options)
    for axes in grid.flat:
        axes.grid(alpha=0.3)
    return figure, dict(zip(bases, grid, strict=True))


def _legend(
    figure: Figure, panels: Sequence[Any], title: str | None = None
) -> None:
    found: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(
        found.values(),
        found.keys(),
        title=title,
        loc='outside right upper',
        frameon=False,
    )


@rc_context(TEXT)
def curves(results: Mapping[str, Any], runs: Sequence[Run]) -> Figure:
    """Loss and AP over epochs; of several seeds the mean and the range."""
    by_name = {run.name: run.facts for run in runs}
    every = [
        (one, [_series(by_name[name]) for name in one['runs']])
        for one in results['configurations']
    ]
    names = [
        name
        for name in ('training loss', 'box AP', 'mask AP')
        if any(series.get(name) for _, found in every for series in found)
    ]
    styles, panels = _style(results), []
    figure, grid = _grid([one for one, _ in every], max(1, len(names)))
    for base, row in grid.items():
        for axes, name in zip(row, names, strict=False):
            for one, found in every:
                if one['base'] == base and any(s[name] for s in found):
                    style = styles[one['attention']]
                    _band(axes, [s[name] for s in found], one, style)
            if not axes.lines:
                axes.remove()
                continue
            panels.append(axes)
            unit = '' if name == 'training loss' else ' in percent'
            axes.set(title=base, xlabel='epoch', ylabel=name + unit)
            axes.xaxis.get_major_locator().set_params(integer=True)
    several = any(len(found) > 1 for _, found in every)
    what = 'mean; band: least to greatest' if several else None
    _legend(figure, panels, what)
    return figure


def _series(facts: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Values by epoch."""
    found = {'training loss': dict(facts.get('loss') or ())}
    for kind, name in zip(KINDS, ('box AP', 'mask AP'), strict=True):
        found[name] = {
            each['epoch']: 100 * each[kind]['all']['AP']
            for each in facts.get('evaluations') or ()
            if each['epoch'] is not None
            and (each.get(kind) or {'all': {}})['all'].get('AP') is not None
        }
    return found


def _band(
    axes: Any, found: list[dict[int, float]], one: Mapping, style: Mapping
) -> None:
    """The mean over the runs that have an epoch, and their range."""
    epochs = sorted(set().union(*found))
    values = [[s[e] for s in found if s.get(e) is not None] for e in epochs]
    mean, low, high = (
        [pick(each) if each else np.nan for each in values]
        for pick in (np.mean, min, max)
    )
    label = one['attention']
    axes.plot(epochs, mean, label=label, ms=3, lw=1.4, **style)
    axes.fill_between(epochs, low, high, color=style['color'], alpha=0.15)
