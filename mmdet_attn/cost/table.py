"""Figures of the benchmark as a table and as a plot."""

from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from statistics import geometric_mean

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

# What a computation costs times that of the other one: the keys of a row.
RATIOS = {
    'time': ('ms', 'other_ms'),
    'bytes': ('moved', 'other_moved'),
    'kernels': ('kernels', 'other_kernels'),
    'kept': ('kept', 'other_kept'),
}
# Marker and colour in the plot.
LOOKS = {'time': 'oC3', 'bytes': 'sC0', 'kernels': 'xC1', 'kept': '^C2'}


def ratios(row: dict) -> dict[str, float]:
    """The ratios of a row by name, those that it has."""
    found = {
        name: row[ours] / row[other]
        for name, (ours, other) in RATIOS.items()
        if row.get(other)
    }
    # The median over rounds is surer than the ratio of two medians.
    return found | ({'time': row['ratio']} if 'time' in found else {})


def mean_ratios(rows: Sequence[dict]) -> dict[str, float]:
    """The geometric means over rows of the ratios that all of them have."""
    found = [ratios(row) for row in rows]
    names = [name for name in RATIOS if all(name in row for row in found)]
    return {
        name: geometric_mean([row[name] for row in found]) for name in names
    }


def make_table(rows: Sequence[dict], title: str, other: str) -> Table:
    """The rows of one mode, and the geometric means of their ratios.

    Args:
        rows: What `Case.measure` returned.
        title: Title of the table.
        other: What the cases were measured against.
    """
    # The shape of the input, without the number of its stage.
    sizes = [r['size'].split(': ')[-1].replace(' ', '') for r in rows]
    means = mean_ratios(rows)
    timed = 'time' in means
    caption = f'{", ".join(means)}: times that of {other}'
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD)
    table.padding = 0, 1, 0, 0
    for head in ('module', 'size'):
        table.add_column(head, no_wrap=True)
    timing = ('ms', 'time', 'quartiles', 'MiB') if timed else ()
    counted = [name for name in means if name != 'time']
    for head in ('params', *timing, *counted):
        table.add_column(head, justify='right', no_wrap=True)
    for row, size in zip(rows, sizes, strict=True):
        cells = [row['name'], size, f'{row["params"]:,}']
        if timed:
            form = '{ms:.1f}|{ratio:.2f}|{low:.2f}-{high:.2f}|{mib:.0f}'
            cells += form.format(**row).split('|')
        table.add_row(*cells, *(f'{ratios(row)[c]:.2f}' for c in counted))
    cells = ['geometric mean', '', '']
    cells += ['', f'{means["time"]:.2f}', '', ''] if timed else []
    table.add_section()
    table.add_row(*cells, *(f'{means[c]:.2f}' for c in counted))
    return table


def plot_cost(
    rows: Sequence[dict], title: str, other: str, file: Path
) -> None:
    """Plot the ratios of every module, a panel for each mode, to a PNG.

    Args:
        rows: What `Case.measure` returned.
        title: Title of the figure.
        other: What the cases were measured against.
        file: The PNG to write.
    """
    modes = group_by(rows, 'mode')
    # Over all sizes of a module.
    panels = {
        mode: {
            name: mean_ratios(group)
            for name, group in group_by(members, 'name').items()
        }
        for mode, members in modes.items()
    }
    first = next(iter(panels.values()))
    names = sorted(first, key=lambda name: [*first[name].values()])
    size = 1.5 + 5 * len(modes), 2 + 0.2 * len(names)
    figure = Figure(size, layout='constrained')
    axes = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    for panel, (mode, modules) in zip(axes, panels.items(), strict=True):
        shown = [name for name in names if name in modules]
        for key, look in LOOKS.items():
            points = [modules[name].get(key, nan) for name in shown]
            if not all(map(isnan, points)):
                panel.plot(points, shown, look, label=key, alpha=0.8)
        panel.axvline(1, color='black', lw=0.8, ls='--')
        panel.set(xlabel=f'times that of {other}', title=mode, xscale='log')
        panel.xaxis.set_major_formatter('{x:g}')
        panel.xaxis.set_minor_formatter('{x:g}')
        panel.grid(alpha=0.3, which='both')
    figure.suptitle(title)
    handles = axes[-1].get_legend_handles_labels()
    figure.legend(*handles, loc='outside lower center', ncols=len(handles[0]))
    figure.savefig(file, dpi=120)


def group_by(rows: Sequence[dict], key: str) -> dict[str, list[dict]]:
    """Rows of the same value, in the order of the first of each."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
