"""Figures of the benchmark as a table and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table


def make_table(rows: Sequence[dict], title: str, other: str) -> Table:
    """The rows, and the geometric mean of the ratios of each mode.

    Args:
        rows: What `Case.measure` returned.
        title: Title of the table.
        other: What the cases were measured against.
    """
    columns = (
        ('module', '{name}'),
        ('size', '{size}'),
        ('mode', '{mode}'),
        ('params', '{params:,}'),
        ('ms', '{ms:.2f}'),
        (other, '{other_ms:.2f}'),
        ('ratio', '{ratio:.3f}'),
        ('quartiles', '{low:.2f}-{high:.2f}'),
        ('MiB', '{mib:.0f}'),
        (other, '{other_mib:.0f}'),
    )
    table = Table(title=title)
    for index, (head, _) in enumerate(columns):
        side: Any = 'left' if index < 3 else 'right'
        table.add_column(head, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*(form.format(**row) for _, form in columns))
    for mode, group in group_by(rows, 'mode').items():
        mean = f'{mean_ratio(group):.3f}'
        table.add_row('geometric mean', '', mode, '', '', '', mean)
    return table


def plot_cost(
    rows: Sequence[dict], title: str, other: str, file: Path
) -> None:
    """Plot the ratio of every module over its parameters to a PNG.

    Args:
        rows: What `Case.measure` returned.
        title: Title of the figure.
        other: What the cases were measured against.
        file: The PNG to write.
    """
    modes = group_by(rows, 'mode')
    figure = Figure((8 * len(modes), 7), layout='constrained')
    panels = figure.subplots(1, len(modes), squeeze=False)[0]
    for axes, (mode, members) in zip(panels, modes.items(), strict=True):
        # Over all sizes of a module.
        points = sorted(
            (mean_ratio(group), sum(row['params'] for row in group), name)
            for name, group in group_by(members, 'name').items()
        )
        axes.set_xscale('symlog', linthresh=10)
        axes.set_yscale('log')
        apart = (points[-1][0] / points[0][0]) ** (1 / 45)
        label_y = 0.0
        for ratio, params, name in points:
            axes.plot(params, ratio, 'o', color='tab:blue', markersize=5)
            # The labels are a column on the right and do not overlap.
            label_y = max(ratio, label_y * apart)
            axes.annotate(
                f'{name} {ratio:.2f}',
                (params, ratio),
                (1.02, label_y),
                textcoords=axes.get_yaxis_transform(),
                arrowprops={'arrowstyle': '-', 'lw': 0.4, 'color': '0.6'},
                va='center',
                fontsize=8,
            )
        axes.axhline(1, color='black', lw=0.8, ls='--')
        axes.set(
            xlabel='parameters (linear below 10)',
            ylabel=f'time, in times that of {other}',
            title=mode,
        )
        axes.yaxis.set_major_formatter('{x:.2f}')
        axes.yaxis.set_minor_formatter('{x:.2f}')
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(file, dpi=120)


def group_by(rows: Sequence[dict], key: str) -> dict[str, list[dict]]:
    """Rows of the same value, in the order of the first of each."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def mean_ratio(rows: Sequence[dict]) -> float:
    """The geometric mean of the ratios."""
    return geometric_mean([row['ratio'] for row in rows])
