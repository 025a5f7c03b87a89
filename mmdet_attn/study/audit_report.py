"""Tables, files and the plot of an audit."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmdet_attn.look.gauge import SHARES
from mmdet_attn.study.audit import EFFECTS

NAMES = {'bbox': 'box AP', 'segm': 'mask AP'}
NONE = '-'


class Table(NamedTuple):
    """Cells of text under a title."""

    title: str
    header: list[str]
    rows: list[list[str]]


def tables(found: Mapping) -> list[Table]:
    """AP by group and metric, and what each part does."""
    first, *_ = found['groups']
    made = [
        Table(
            f'{NAMES[metric]} of {found["images"]} images, and its change',
            ['stage', 'parts', *EFFECTS.values()],
            [_ap_row(group, metric) for group in found['groups']],
        )
        for metric in first['ap']['trained']
    ]
    gates = [row for row in found['parts'] if 'shares' in row]
    if gates:
        columns = ['alpha', 'mean', 'image std', 'saturated']
        rows = [_gate_row(row['name'], row) for row in gates]
        rows += [
            _gate_row(group['name'], {'shares': group['shares']})
            for group in found['groups']
        ]
        made.append(
            Table('factors of the gates', ['gate', *columns, *SHARES], rows)
        )
    return made


def _ap_row(group: Mapping, metric: str) -> list[str]:
    trained = 100 * group['ap']['trained'][metric]
    cells = [group['name'], str(len(group['parts'])), f'{trained:.1f}']
    for effect in list(EFFECTS)[1:]:
        if effect in group['ap']:
            ap = 100 * group['ap'][effect][metric]
            cells.append(f'{ap:.1f} ({ap - trained:+.2f})')
        else:
            cells.append(NONE)
    return cells


def _gate_row(name: str, row: Mapping) -> list[str]:
    def cell(key: str, form: str) -> str:
        value = row.get(key)
        return NONE if value is None else format(value, form)

    parts = row['shares'] or {}
    return [
        name,
        cell('alpha', '.3f'),
        cell('mean', '.3f'),
        cell('image_std', '.4f'),
        cell('saturation', '.0%'),
        *(f'{parts[key]:.2%}' if parts else NONE for key in SHARES),
    ]


def sentences(found: Mapping) -> list[str]:
    """The verdict of each group, and what was left out."""
    several = len(found['groups']) > 1
    lines = [
        f'{group["name"]}: {group["sentence"]}'
        if several
        else group['sentence']
        for group in found['groups']
    ]
    if time := found.get('time'):
        lines.append(
            f'Without these parts a batch takes {time["ratio"]:.2f} times as '
            f'long (quartiles {time["low"]:.2f} to {time["high"]:.2f}, on '
            f'{found["device"]}).'
        )
    if fold := found.get('fold'):
        aps = ', '.join(
            f'{NAMES[metric]} {100 * value:.1f}'
            for metric, value in fold['ap'].items()
        )
        lines.append(
            f'{len(fold["plugins"])} plugins are folded into the layers in '
            f'front of them: {aps}. {fold["file"]} fits {fold["config"]}.'
        )
        lines += [
            f'Not folded: {name}, as {reason}.'
            for name, reason in fold['left'].items()
        ]
    lines += [
        f'Not audited: {name}, as {reason}.'
        for name, reason in found['not_audited'].items()
    ]
    return lines


def show(found: Mapping) -> None:
    """Print tables and verdicts to the terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(width=max(Console().width, 120))
    for title, header, rows in tables(found):
        grid = RichTable(title=title)
        for index, column in enumerate(header):
            grid.add_column(
                column, justify='right' if index else 'left', no_wrap=not index
            )
        for row in rows:
            grid.add_row(*row)
        console.print(grid)
    for line in sentences(found):
        print(line)


def write(found: Mapping, folder: Path) -> None:
    """Write audit.json, audit.md, audit.csv, gates.csv and factors.png."""
    text = json.dumps(found, indent=1)
    (folder / 'audit.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'audit.md').write_text(_markdown(found), encoding='utf-8')
    _write_csv(folder / 'audit.csv', _ap_records(found))
    gates = [row for row in found['parts'] if 'shares' in row]
    if gates:
        records = [
            {k: v for k, v in row.items() if k != 'shares'}
            | (row['shares'] or dict.fromkeys(SHARES))
            for row in gates
        ]
        _write_csv(folder / 'gates.csv', records)
        plot(gates, folder / 'factors.png')


def _markdown(found: Mapping) -> str:
    lines = ['# Audit', '']
    lines += [f'- {line}' for line in sentences(found)]
    for title, header, rows in tables(found):
        rules = [':--', *['--:'] * (len(header) - 1)]
        lines += ['', f'{title}:', '']
        lines += [f'| {" | ".join(row)} |' for row in (header, rules, *rows)]
    return '\n'.join([*lines, ''])


def _ap_records(found: Mapping) -> list[dict]:
    return [
        {
            'group': group['name'],
            'parts': len(group['parts']),
            'effect': effect,
            'metric': metric,
            'ap': value,
            'change': value - group['ap']['trained'][metric],
        }
        for group in found['groups']
        for effect, aps in group['ap'].items()
        for metric, value in aps.items()
    ]


def _write_csv(file: Path, records: Sequence[Mapping]) -> None:
    with open(file, 'w', newline='', encoding='utf-8') as stream:
        writer = csv.DictWriter(stream, records[0])
        writer.writeheader()
        writer.writerows(records)


def plot(gates: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Plot the factors of gates on one scale, and the shares of each."""
    from matplotlib.figure import Figure

    width = min(16.0, max(8.0, 2.5 + 0.3 * len(gates)))
    figure = Figure((width, 6.4), layout='constrained')
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    places = range(len(gates))
    top.axhline(1, color='0.6', lw=0.8, ls='--')
    top.vlines(
        places,
        _column(gates, 'low'),
        _column(gates, 'high'),
        color='0.75',
        lw=1,
        label='least to greatest',
    )
    top.errorbar(
        places,
        _column(gates, 'mean'),
        _column(gates, 'image_std'),
        fmt='o',
        ms=4,
        color='#0072B2',
        ecolor='#D55E00',
        elinewidth=3,
        label='mean ± standard deviation over images',
    )
    low, high = top.get_ylim()
    top.set_ylim(min(low, 0.9), max(high, 1.1))  # rounding is no structure
    top.set_ylabel('factor 1 + α (g - 1)')
    base = [0.0] * len(gates)
    colours = ('0.8', '#56B4E9', '#009E73', '#D55E00', '#E69F00')
    for key, colour in zip(SHARES, colours, strict=True):
        parts = [(gate['shares'] or {}).get(key, 0.0) for gate in gates]
        bottom.bar(places, parts, bottom=base, color=colour, label=key)
        base = [a + b for a, b in zip(base, parts, strict=True)]
    bottom.set_ylabel('share of E[(F - 1)²]')
    names = [gate['name'].removeprefix('backbone.') for gate in gates]
    bottom.set_xticks(places, names, rotation=90, fontsize=7)
    bottom.set_ylim(0, 1)
    bottom.set_xlim(-0.6, len(gates) - 0.4)
    for axes in (top, bottom):
        axes.grid(axis='y', alpha=0.25)
    figure.suptitle('What the gates multiply by, in order of depth')
    figure.legend(
        loc='outside lower center', ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(file, dpi=110)


def _column(rows: Iterable[Mapping], key: str) -> list[float]:
    return [row[key] for row in rows]
