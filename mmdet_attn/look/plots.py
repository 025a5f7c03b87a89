"""Plot the channel weights and the alphas of gates."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mmdet_attn.look.views import GateView, by_stage

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
LEAST_SPAN = 0.02  # of a vertical axis: less would show rounding as structure


@rc_context({'text.parse_math': False})  # a class may be named $x
def plot_channels(
    views: Sequence[GateView],
    groups: Mapping[str, list[int]],
    title: str,
    file: str | Path,
) -> None:
    """Plot weight over channel index to a PNG, with axes for each gate.

    Args:
        views: Gates with weights of channels.
        groups: Indices of the images of each curve, by its label.
        title: Title of the figure.
        file: The PNG to write.
    """
    columns = min(2, len(views))
    rows = ceil(len(views) / columns)
    figure = Figure((6 * columns, 0.9 + 2.1 * rows), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(views) :]:
        axes.remove()
    for axes, view in zip(grid, views, strict=False):
        _plot_gate(axes, view, groups)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.suptitle(title, x=0.01, ha='left', fontsize=12, fontweight='bold')
    figure.legend(
        handles,
        labels,
        loc='outside lower left',
        ncols=5 if columns == 2 else 2,
        fontsize=8,
        frameon=False,
    )
    figure.savefig(file, dpi=100)


def _plot_gate(
    axes: Any, view: GateView, groups: Mapping[str, list[int]]
) -> None:
    weights = np.asarray(view.weights)
    numbers = f'mean {weights.mean():.3f}'
    if view.alpha is not None:
        numbers = f'alpha {view.alpha:.3f}, {numbers}'
    index = np.arange(weights.shape[1])
    if view.spread is not None:
        mean, spread = weights.mean(0), weights.std(0)
        numbers += f', std over images {view.spread:.4f}'
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
    low, high = axes.get_ylim()
    spare = max(0.0, LEAST_SPAN - (high - low)) / 2
    axes.set_ylim(low - spare, high + spare)
    axes.set_xlim(-0.5, len(index) - 0.5)
    axes.ticklabel_format(axis='y', useOffset=False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel('channel index', fontsize=8)
    axes.set_ylabel('weight g', fontsize=8)
    name = view.name.removeprefix('backbone.')
    axes.set_title(name, loc='left', fontsize=9, fontweight='bold')
    axes.set_title(numbers, loc='right', fontsize=8, color='0.35')
    axes.grid(alpha=0.25)


def plot_alphas(views: Sequence[GateView], file: str | Path) -> Path | None:
    """Plot alpha over the gates in order of depth. None if none has one."""
    views = [view for view in views if view.alpha is not None]
    if not views:
        return None
    width = min(14.0, max(6.0, 2 + 0.28 * len(views)))
    figure = Figure((width, 3.4), layout='constrained')
    axes = figure.subplots()
    for value, label in ((0, 'identity'), (1, "the paper's module")):
        axes.axhline(value, color='0.6', lw=0.8, ls='--')
        axes.annotate(
            label,
            (1, value),
            (4, 0),
            xycoords=('axes fraction', 'data'),
            textcoords='offset points',
            fontsize=8,
            color='0.35',
            va='center',
        )
    kinds = list(dict.fromkeys(view.kind for view in views))
    for kind, colour in zip(kinds, CYCLE * len(kinds), strict=False):
        points = [(i, v.alpha) for i, v in enumerate(views) if v.kind == kind]
        axes.plot(*zip(*points, strict=True), 'o', color=colour, label=kind)
    stages = by_stage(views)
    start, middles = 0, []
    for stage in stages.values():
        middles.append(start + (len(stage) - 1) / 2)
        start += len(stage)
        if start < len(views):
            axes.axvline(start - 0.5, color='0.85', lw=0.8)
    names = [stage.removeprefix('backbone.') for stage in stages]
    axes.set_xticks(middles, names, fontsize=8)
    axes.set_xlim(-0.6, len(views) - 0.4)
    axes.set_xlabel('gates in order of depth, by stage')
    axes.set_ylabel('alpha')
    axes.set_title('alpha by depth', loc='left', fontweight='bold')
    axes.legend(
        frameon=False,
        fontsize=8,
        loc='lower right',
        bbox_to_anchor=(1, 1),
        ncols=len(kinds),
    )
    axes.grid(axis='y', alpha=0.25)
    figure.savefig(file, dpi=100)
    return Path(file)
