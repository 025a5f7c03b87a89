"""Plot the factors of gates, all on one scale."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mmdet_attn.look.views import PARTS, GateView, Summary, by_stage

# Okabe and Ito's, which colour-blind people can tell apart.
CYCLE = (
    '#0072B2',
    '#E69F00',
    '#009E73',
    '#CC79A7',
    '#56B4E9',
    '#D55E00',
    '#8C6D00',
    '#7F3FBF',
)


@rc_context({'text.parse_math': False})  # a class may be named $x
def plot_channels(
    views: Sequence[GateView],
    groups: Mapping[str, list[int]],
    axis: tuple[float, float],
    file: Path,
) -> Path:
    """Plot factor over channel index to a PNG, with axes for each gate.

    Args:
        views: Gates with factors of channels.
        groups: Indices of the images of each curve, by its label.
        axis: Ends of the vertical axes.
        file: The PNG to write.
    """
    columns = min(2, len(views))
    rows = ceil(len(views) / columns)
    figure = Figure((6 * columns, 0.5 + 1.7 * rows), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(views) :]:
        axes.remove()
    for axes, view in zip(grid, views, strict=False):
        _plot_gate(axes, view, groups)
        axes.set_ylim(axis)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc='outside lower left',
        ncols=5 if columns == 2 else 2,
        fontsize=8,
        frameon=False,
    )
    figure.savefig(file, dpi=100)
    return file


def _plot_gate(
    axes: Any, view: GateView, groups: Mapping[str, list[int]]
) -> None:
    weights = np.asarray(view.weights)
    numbers = f'mean {weights.mean():.3f}'
    index = np.arange(weights.shape[1])
    axes.axhline(1, color='0.6', lw=0.8, ls='--')
    if len(weights) > 1:
        mean, spread = weights.mean(0), weights.std(0)
        numbers += f', std between images {view.parts["image"] ** 0.5:.4f}'
        label = f'mean over {len(weights)} images'
        width = 1.6 if groups else 0.9  # seen below other curves
        axes.plot(index, mean, color='black', lw=width, label=label)
        axes.fill_between(
            index,
            mean - spread,
            mean + spread,
            color='0.75',
            lw=0,
            zorder=1,
            label='± 1 standard deviation over them',
        )
    for (label, images), colour in zip(groups.items(), CYCLE, strict=False):
        curve = weights[images].mean(0)
        axes.plot(index, curve, color=colour, lw=0.7, label=label)
    axes.set_xlim(-0.5, len(index) - 0.5)
    axes.tick_params(labelsize=8)
    axes.set_xlabel('channel index', fontsize=8)
    axes.set_ylabel('factor', fontsize=8)
    name = view.name.removeprefix('backbone.')
    axes.set_title(name, loc='left', fontsize=9, fontweight='bold')
    axes.set_title(numbers, loc='right', fontsize=8, color='0.35')
    axes.grid(alpha=0.25)


def plot_factors(
    views: Sequence[GateView], summary: Summary, file: Path
) -> Path:
    """Plot the range of each gate's factor in order of depth."""
    width = min(12.0, max(8.0, 2 + 0.4 * len(views)))
    figure = Figure((width, 3.6), layout='constrained')
    axes = figure.subplots()
    axes.axhline(1, color='0.6', lw=0.8, ls='--')
    places = np.arange(len(views))
    means = [view.mean for view in views]
    axes.vlines(
        places,
        [view.low for view in views],
        [view.high for view in views],
        color='0.75',
        lw=5,
        label='least to greatest',
    )
    axes.plot(places, means, 'ko', ms=4, label='mean')
    for shift, name, colour in zip(
        (-0.3, -0.1, 0.1, 0.3), PARTS, CYCLE, strict=False
    ):
        deviations = [view.parts[name] ** 0.5 for view in views]
        if max(deviations) < 1e-6:  # rounding
            continue
        axes.errorbar(
            places + shift,
            means,
            deviations,
            fmt='none',
            color=colour,
            lw=2.5,
            label=f'± std, {name}',
        )
    start, middles = 0, []
    stages = by_stage(views)
    for stage in stages.values():
        middles.append(start + (len(stage) - 1) / 2)
        start += len(stage)
        if start < len(views):
            axes.axvline(start - 0.5, color='0.85', lw=0.8)
    names = [stage.removeprefix('backbone.') for stage in stages]
    axes.set_xticks(middles, names, fontsize=8)
    axes.set_xlim(-0.6, len(views) - 0.4)
    axes.set_ylim(summary.axis)
    axes.set_xlabel('gates in order of depth, by stage')
    axes.set_ylabel('factor')
    axes.grid(axis='y', alpha=0.25)
    figure.legend(loc='outside upper left', ncols=5, fontsize=8, frameon=False)
    figure.savefig(file, dpi=100)
    return file
