"""Rows of the benchmark as a table and as a picture."""

from pathlib import Path
from statistics import geometric_mean

from rich.table import Table

from mmdet_attn.cost.modules import Case, Setup
from mmdet_attn.cost.timing import compare, peak_mib


def measure(case: Case, setup: Setup, rounds: int) -> dict:
    """Time and memory of a case as a row."""
    time = compare(case.run, case.other, rounds)
    return {
        'name': case.name,
        'size': case.size,
        'mode': 'forward+backward' if setup.backward else 'forward',
        'params': case.params,
        **time._asdict(),
        'mib': peak_mib(case.run, setup.device),
        'other_mib': peak_mib(case.other, setup.device),
    }


def make_table(rows: list[dict], title: str, other: str) -> Table:
    """The rows, with the geometric mean of the ratios of each mode."""
    table = Table(title=title)
    for head in ('module', 'size', 'mode'):
        table.add_column(head, no_wrap=True)
    for head in (
        'params',
        'ms',
        other,
        'ratio',
        'quartiles',
        'MiB',
        f'{other} ',
    ):
        table.add_column(head, justify='right', no_wrap=True)
    for row in rows:
        table.add_row(
            row['name'],
            row['size'],
            row['mode'],
            f'{row["params"]:,}',
            f'{row["ms"]:.2f}',
            f'{row["other_ms"]:.2f}',
            f'{row["ratio"]:.3f}',
            f'{row["low"]:.2f}-{row["high"]:.2f}',
            f'{row["mib"]:.0f}',
            f'{row["other_mib"]:.0f}',
        )
    for mode in dict.fromkeys(row['mode'] for row in rows):
        ratios = [row['ratio'] for row in rows if row['mode'] == mode]
        mean = f'{geometric_mean(ratios):.3f}'
        table.add_row('geometric mean', '', mode, '', '', '', mean)
    return table


def by_module(rows: list[dict]) -> list[tuple[str, int, float]]:
    """Name, parameters over all sizes, geometric mean of the ratios."""
    names = dict.fromkeys(row['name'] for row in rows)
    grouped = [[r for r in rows if r['name'] == name] for name in names]
    return [
        (
            group[0]['name'],
            sum(row['params'] for row in group),
            geometric_mean([row['ratio'] for row in group]),
        )
        for group in grouped
    ]


def plot_cost(rows: list[dict], title: str, other: str, file: Path) -> None:
    """Draw the cost of every module against its parameters to a PNG."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    modes = list(dict.fromkeys(row['mode'] for row in rows))
    figure, panels = plt.subplots(
        1, len(modes), figsize=(8 * len(modes), 7), squeeze=False
    )
    for axes, mode in zip(panels[0], modes, strict=True):
        points = by_module([row for row in rows if row['mode'] == mode])
        points.sort(key=lambda point: point[2])
        axes.set_xscale('symlog', linthresh=10)
        axes.set_yscale('log')
        heights = [point[2] for point in points]
        step = (max(heights) / min(heights)) ** (1 / 45)
        text_y = 0.0
        for name, params, ratio in points:
            axes.plot(params, ratio, 'o', color='tab:blue', markersize=5)
            # Labels in a column on the right, none over another.
            text_y = max(ratio, text_y * step)
            axes.annotate(
                f'{name} {ratio:.2f}',
                (params, ratio),
                (1.02, text_y),
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
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
