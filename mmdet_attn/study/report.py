"""Results as a table, Markdown, CSV, JSON and one page."""

import csv
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from mmdet_attn.errors import printable
from mmdet_attn.study import plots
from mmdet_attn.study.results import compare
from mmdet_attn.study.table import KINDS, METRICS, Run
from mmdet_attn.templates import render

EXPLAINED = (
    'AP is in percent: mean ± standard deviation over seeds. A difference is '
    'that to the same detector without attention, of runs with the same seed. '
    'In brackets is its 95 % interval. One in 20 such intervals misses the '
    'true difference.'
)
PAPER = (
    "The paper's gains are those of one training each. Its baselines are 0.3 "
    'to 1.0 AP below those of MMDetection 3.x, and its SE and ECA started '
    'from ImageNet weights with attention.'
)


def tables(results: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """What all reports show: tables by their titles, heads first."""
    found, every = {}, results['configurations']
    for prefix, kind in zip(KINDS.values(), ('box', 'mask'), strict=True):
        names = [prefix + metric for metric in METRICS]
        rows = [
            [
                *(one['base'], one['attention'], str(len(one['seeds']))),
                *(_mean(one['ap'].get(name)) for name in names),
                _number(one['parameters'], 1e-6, 2),
                _number(one['gflops'], 1, 1),
            ]
            for one in every
            if prefix + 'AP' in one['ap']
        ]
        head = ['base', 'attention', 'seeds', *METRICS, 'params (M)', 'GFLOPs']
        found[f'{kind} AP'] = [head, *rows]
        rows = [
            [
                *(one['base'], one['attention'], str(len(one['pairs']))),
                *(_interval(one['differences'].get(name)) for name in names),
                _number(one['paper'].get(prefix + 'AP'), 1, 1, '+'),
            ]
            for one in every
            if prefix + 'AP' in one['differences']
        ]
        head = ['base', 'attention', 'pairs', *METRICS, "the paper's AP"]
        found[f'{kind} AP, difference to the baseline'] = [head, *rows]
    rows = [
        [
            *(row['run'], row['attention'], str(row['seed'])),
            f'{row["epoch"]} of {row["epochs"] or "?"}',
            *(_number(row[name], 1, 1) for name in (*METRICS, 'mask_AP')),
            _number(row['seconds'], 1 / 3600, 2),
        ]
        for row in results['runs']
    ]
    head = ['run', 'attention', 'seed', 'epoch', *METRICS, 'mask AP', 'hours']
    found['runs'] = [head, *rows]
    return {
        title: _filled(table) for title, table in found.items() if table[1:]
    }


def _filled(table: list[list[str]]) -> list[list[str]]:
    """Without the columns that have no value in any row."""
    columns = zip(*table, strict=True)
    kept = [column for column in columns if {*column[1:]} != {'-'}]
    return [list(row) for row in zip(*kept, strict=True)]


def _number(
    value: float | None, scale: float, digits: int, sign: str = ''
) -> str:
    return '-' if value is None else f'{value * scale:{sign}.{digits}f}'


def _mean(spread: Mapping | None) -> str:
    if spread is None:
        return '-'
    sd = '' if spread['sd'] is None else f' ± {spread["sd"]:.1f}'
    return f'{spread["mean"]:.1f}{sd}'


def _interval(found: Mapping | None) -> str:
    if found is None:
        return '-'
    text = f'{found["mean"]:+.1f}'
    if found['low'] is None:
        return text
    return f'{text} ({found["low"]:+.1f} to {found["high"]:+.1f})'


def verdicts(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each difference, or why there is none."""
    found = []
    for one in results['configurations']:
        for name, kind in (('AP', 'box'), ('mask_AP', 'mask')):
            if name in one['differences']:
                verdict = one['differences'][name]['verdict']
                found.append(f'{one["name"]}, {kind} AP: {verdict}')
        if one['lacking']:
            found.append(f'{one["name"]}: {one["lacking"]}')
    return found


def details(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a reader must know of each configuration, in lines."""
    found = {}
    for one in results['configurations']:
        lines = list(one['notes'])
        if 'AP' in one['differences']:
            method = one['differences']['AP']['method']
            lines.append(f'compared with {one["baseline"]}: {method}')
        if one['weights']:
            lines.append(f'starting weights: {", ".join(one["weights"])}')
        if one['start']:
            lines.append(f'plugins at the start: {one["start"]}')
        for other, key in (
            ('the baseline', 'settings'),
            ('the paper', 'paper_settings'),
        ):
            lines += [
                f'{what}: {here}; {other}: {there}'
                for what, here, there in one[key]
            ]
        found[one['name']] = lines
    return found


def markdown(results: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The report as Markdown.

    Args:
        results: What `compare` returns.
        pictures: Paths of plots, relative to the Markdown file.
    """
    paragraphs = map(_escape, intro(results))
    parts = ['## Results', *paragraphs, _list(verdicts(results))]
    for title, (head, *rows) in tables(results).items():
        cells = [head, ['---'] * len(head), *rows]
        lines = [f'| {" | ".join(map(_escape, row))} |' for row in cells]
        parts += [f'**{title}**', '\n'.join(lines)]
    parts += [f'![{Path(name).stem}](<{name}>)' for name in pictures]
    for name, lines in details(results).items():
        parts += [f'### {_escape(name)}', _list(lines)]
    return '\n\n'.join(filter(None, parts)) + '\n'


def _list(lines: Sequence[str]) -> str:
    return '\n'.join(f'- {_escape(line)}' for line in lines)


def _escape(text: str) -> str:
    """Escape the characters of a name or path that Markdown uses."""
    text = printable(text).replace('\n', ' ')
    return re.sub(r'[\\|*<`[]|\b_|_\b', r'\\\g<0>', text)


def intro(results: Mapping[str, Any]) -> list[str]:
    """When and on what the trainings ran, and how to read the numbers."""
    rows = [row for row in results['runs'] if row['epochs']]
    hours = sum(row['seconds'] or 0 for row in rows) / 3600
    devices = sorted({row['device'] for row in rows} - {None})
    made = f'{results["created"][:10]}: {len(rows)} trainings'
    made += f', {hours:.2f} hours' if hours else ''
    made += f' on {", ".join(devices)}' if devices else ''
    found = [f'{made}.', EXPLAINED]
    papers = any(one['paper'] for one in results['configurations'])
    return [*found, PAPER] if papers else found


def write_csv(results: Mapping[str, Any], file: str | Path) -> None:
    """Write the table of runs."""
    rows = results['runs']
    with open(file, 'w', newline='', encoding='utf-8') as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def write_json(results: Mapping[str, Any], file: str | Path) -> None:
    """Write everything as data."""
    text = json.dumps(results, indent=1, allow_nan=False)
    Path(file).write_text(text + '\n', encoding='utf-8')


def page(
    results: Mapping[str, Any], drawn: Mapping[str, bytes], title: str
) -> str:
    """One HTML page that holds its plots.

    Args:
        results: What `compare` returns.
        drawn: What `plots.draw` returns.
        title: Its title.
    """
    return render(
        'mmdet_attn.study',
        title=title,
        intro=intro(results),
        verdicts=verdicts(results),
        tables=tables(results),
        details=details(results),
        plots={name: b64encode(svg).decode() for name, svg in drawn.items()},
    )


def write_results(
    folder: str | Path,
    rows_of_plan: Sequence[Mapping[str, Any]],
    facts_by_run: Mapping[str, Mapping[str, Any]],
) -> Table:
    """Write the results of a study into its folder.

    `results.csv`, `results.json`, `results.md`, `page.html` and `plots/`.

    Args:
        folder: The folder of the study, with the work directories in `runs`.
        rows_of_plan: `runs` of its `plan.json`.
        facts_by_run: The facts of the runs that have started, by name.

    Returns:
        The summary for a terminal.
    """
    folder = Path(folder)
    runs = [
        Run(name, folder / 'runs' / name, facts_by_run.get(name) or {}, row)
        for row in rows_of_plan
        for name in [row['name']]
    ]
    results = compare(runs)
    drawn = plots.draw(results, runs)
    (folder / 'plots').mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        (folder / 'plots' / f'{name}.svg').write_bytes(svg)
    pictures = [f'plots/{name}.svg' for name in drawn]
    text = markdown(results, pictures)
    (folder / 'results.md').write_text(text, encoding='utf-8')
    write_csv(results, folder / 'results.csv')
    write_json(results, folder / 'results.json')
    text = page(results, drawn, folder.resolve().name)
    (folder / 'page.html').write_text(text, encoding='utf-8')
    return summary_table(results)


def summary_table(results: Mapping[str, Any]) -> Table:
    """The results for a terminal: a line for each configuration."""
    table = Table('base', 'attention', 'runs', 'AP', 'difference')
    for one in results['configurations']:
        found = one['differences'].get('AP')
        table.add_row(
            *(one['base'], one['attention']),
            f'{len(one["seeds"])} of {len(one["runs"])}',
            _mean(one['ap'].get('AP')),
            found['verdict'] if found else one['lacking'],
        )
    return table
