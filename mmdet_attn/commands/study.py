"""Run all trainings of a question, and compare them.

A study file names detectors, attention and seeds. Every combination is one
training. All configs are written and checked before anything starts. The
same command carries on what was interrupted, and never repeats a training
that has finished.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.config import Config
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mmdet_attn.errors import InputError
from mmdet_attn.study.plan import Study, read_study
from mmdet_attn.study.status import (
    State,
    duration,
    errors,
    read_json,
    states_of,
    status_table,
    summary,
)


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='The manual has the keys of a study file: docs/study.md',
    )
    parser.add_argument(
        'action',
        nargs='?',
        choices=['run', 'status', 'results'],
        default='run',
        help='run: start or carry on, then write the results (the default); '
        'status: show how far each training is; results: write the results '
        'of what has finished',
    )
    parser.add_argument(
        'study', metavar='STUDY', help='a study file (.yaml), or its folder'
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='write and check the configs, show what would run and how long '
        'it takes, and stop',
    )
    parser.add_argument(
        '--watch',
        action='store_true',
        help='status: go on showing it, until all trainings have ended',
    )
    return parser


def main(args):
    study = read_study(args.study)
    if args.action == 'status':
        return show_status(study, args.watch)
    if args.action == 'results':
        return results(study)
    from mmdet_attn.cli import require_stack

    require_stack()
    take(study)
    estimate = prepare(study)
    if args.dry_run:
        return None
    return run(study, estimate)


def take(study: Study) -> None:
    """Keep other commands from running the same study."""
    from mmdet_attn.training.alone import take_lock

    holder, failure = take_lock(str(study.folder))
    if failure:
        raise InputError(
            f'work_dir {study.folder} cannot be written: {failure}.'
        )
    if holder:
        raise InputError(
            f'{study.folder}: another command runs this study ({holder}): '
            f'wait for it, or end it. mmdet-attn study status {study.folder} '
            'shows how far it is.'
        )


def prepare(study: Study) -> float:
    """Write and check all configs; the seconds of a training, about."""
    from mmdet_attn.study import configs as module
    from mmdet_attn.terminal import quiet
    from mmdet_attn.weights.save import write_bytes

    # What a call before this one has checked, for the same configs.
    plan = read_json(study.folder / 'plan.json')
    checked = {row['name']: row for row in plan.get('runs', [])}
    configs: dict[str, Config] = {}
    rows: dict[str, dict] = {}
    for each in track(study.runs, 'checking', transient=True):
        with quiet():
            configs[each.name] = module.make_config(study, each)
            key = each.configuration
            file = study.config(each)
            text = file.read_text() if file.is_file() else ''
            if each.name in checked and text == configs[each.name].pretty_text:
                rows.setdefault(key, checked[each.name])
            if key not in rows:
                rows[key] = module.check_configuration(
                    configs[each.name], each, study.launch['kind'] == 'local'
                )
    module.write_configs(study, configs)
    write_bytes(study.folder / 'study.yaml', study.text.encode())
    plan = {
        'study': {'name': study.name, 'launch': study.launch},
        'runs': [
            {
                **rows[each.configuration],
                'name': each.name,
                'base': each.base['name'],
                'attention': each.attention['name'],
                'seed': each.seed,
            }
            for each in study.runs
        ],
    }
    text = json.dumps(plan, indent=2) + '\n'
    write_bytes(study.folder / 'plan.json', text.encode())
    states = states_of(study)
    title = f'study {study.name}: {study.folder}'
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column('training', overflow='fold')
    table.add_column('seeds')
    for head in ('parameters', 'GFLOPs', 'one takes', 'finished'):
        table.add_column(head, justify='right', no_wrap=True)
    for key, row in rows.items():
        same = [each for each in study.runs if each.configuration == key]
        gflops = row['gflops']
        table.add_row(
            key,
            ', '.join(str(each.seed) for each in same),
            f'{row["parameters"]:,}',
            '' if gflops is None else f'{gflops:.2f}',
            duration(row['estimate']) if row['estimate'] else '?',
            str(sum(states[e.name].word == 'finished' for e in same)),
        )
    console = Console()
    console.print(table)
    known = [row['estimate'] for row in rows.values() if row['estimate']]
    mean = sum(known) / len(known) if known else float('nan')
    console.print(summary(study, states, mean))
    return mean


def run(study: Study, estimate: float) -> None:
    """Run what has not finished, show it, and write the results."""
    if study.launch['kind'] == 'slurm':
        from mmdet_attn.study.slurm_array import run_there as run_all
    else:
        from mmdet_attn.study.execute import run_here as run_all
    states = states_of(study)
    todo = [e for e in study.runs if states[e.name].word != 'finished']
    with shown(study, estimate) as show:
        run_all(study, todo, show)
    states = states_of(study)
    rest = [n for n, state in states.items() if state.word != 'finished']
    if len(rest) < len(states):
        results(study)
    if rest:
        print(*errors(states), sep='\n')
        raise InputError(
            f'{len(rest)} of {len(states)} trainings have not finished '
            f'({", ".join(rest[:3])}): mmdet-attn study status '
            f'{study.folder} shows why; the same command tries them again.'
        )


@contextlib.contextmanager
def shown(
    study: Study, estimate: float = float('nan')
) -> Iterator[Callable[[], None]]:
    """Show how far the trainings are whenever the result is called.

    A terminal gets a table that changes, a file a line for each change.
    """
    console = Console()
    words: dict[str, str] = {}
    due = 0.0

    def show() -> None:
        nonlocal words, due
        if time.monotonic() < due:
            return
        due = time.monotonic() + 2
        states = states_of(study)
        line = summary(study, states, estimate)
        if console.is_terminal:
            live.update(view(study, states, console, line), refresh=True)
            return
        before = words
        words = {name: state.word for name, state in states.items()}
        for name, word in words.items():
            if before.get(name, 'waiting') != word:
                ap = states[name].ap
                what = states[name].error or (
                    '' if ap is None else f'box AP {ap:.1f}'
                )
                print(f'{name} {word} {what}\n  {line}', flush=True)

    with Live(console=console, auto_refresh=False) as live:
        try:
            yield show
        finally:
            due = 0.0
            show()


def view(
    study: Study, states: dict[str, State], console: Console, line: str
) -> Group:
    """The live view, which never has more lines than the terminal."""
    failed = errors(states)[:3]
    table = status_table(study, states, max(3, console.height - 9))
    short = [Text(e, no_wrap=True, overflow='ellipsis') for e in failed]
    return Group(table, *short, Text(line))


def show_status(study: Study, watch: bool) -> None:
    """Show how far each training is."""
    if watch:
        with shown(study) as show:
            while busy(study):
                show()
                time.sleep(1)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    states = states_of(study)
    console.print(status_table(study, states))
    for line in errors(states):
        console.print(Text(line))
    console.print(summary(study, states))


def busy(study: Study) -> bool:
    """Whether a training runs or waits."""
    words = {state.word for state in states_of(study).values()}
    return not words <= {'finished', 'failed'}


def results(study: Study) -> None:
    """Write the results of what has finished, and show them."""
    from mmdet_attn.study.facts import read_facts
    from mmdet_attn.study.report import write_results

    states = states_of(study)
    facts = {
        each.name: read_facts(study.work_dir(each))
        for each in study.runs
        if states[each.name].word == 'finished'
    }
    if not facts:
        raise InputError(
            f'{study.folder}: no training has finished yet; mmdet-attn study '
            f'status {study.folder} shows how far they are.'
        )
    rows = json.loads(Path(study.folder, 'plan.json').read_text())['runs']
    Console().print(write_results(study.folder, rows, facts))
