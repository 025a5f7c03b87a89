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
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mmdet_attn.cli import require_stack
from mmdet_attn.errors import InputError
from mmdet_attn.study.plan import Study, read_study
from mmdet_attn.study.status import (
    duration,
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
    require_stack()
    study.folder.mkdir(parents=True, exist_ok=True)
    if not args.dry_run:
        from mmdet_attn.training.alone import lock

        lock(str(study.folder), 'none')
    estimate = prepare(study)
    if args.dry_run:
        return None
    return run(study, estimate)


def prepare(study: Study) -> float:
    """Write and check all configs; the seconds of a training, about."""
    from mmdet_attn.study import configs as module

    configs, rows = {}, {}
    for each in track(study.runs, 'checking', transient=True):
        with module.quiet():
            configs[each.name] = module.make_config(study, each)
            key = each.configuration
            if key not in rows:
                rows[key] = module.check_configuration(
                    configs[each.name], each, study.launch['kind'] == 'local'
                )
    module.write_configs(study, configs)
    (study.folder / 'study.yaml').write_text(study.text)
    plan = {
        'study': {'name': study.name, 'launch': study.launch},
        'runs': [
            {
                'name': each.name,
                'base': each.base['name'],
                'attention': each.attention['name'],
                'seed': each.seed,
                **rows[each.configuration],
            }
            for each in study.runs
        ],
    }
    text = json.dumps(plan, indent=2)
    (study.folder / 'plan.json').write_text(text + '\n')
    states = states_of(study)
    table = Table(title=f'study {study.name}: {study.folder}')
    table.add_column('training', no_wrap=True)
    for head in ('seeds', 'parameters', 'GFLOPs', 'one takes about'):
        table.add_column(head, justify='right')
    table.add_column('finished', justify='right')
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
    states = states_of(study)
    todo = [
        each for each in study.runs if states[each.name].word != 'finished'
    ]
    if study.launch['kind'] == 'slurm':
        from mmdet_attn.study.slurm_array import run_there as run_all
    else:
        from mmdet_attn.study.execute import run_here as run_all
    console = Console()
    with contextlib.ExitStack() as stack:
        if console.is_terminal:
            live = stack.enter_context(
                Live(console=console, auto_refresh=False)
            )
        words: dict[str, str] = {}
        due = 0.0

        def show() -> None:
            nonlocal words, due
            if time.monotonic() < due:
                return
            due = time.monotonic() + 2
            states = states_of(study)
            if console.is_terminal:
                table = status_table(study, states)
                text = Text(summary(study, states, estimate))
                live.update(Group(table, text), refresh=True)
                return
            before = words
            words = {name: state.word for name, state in states.items()}
            for name, word in words.items():
                if before.get(name, 'waiting') != word:
                    ap = states[name].ap
                    what = states[name].error or (
                        '' if ap is None else f'box AP {ap:.1f}'
                    )
                    line = summary(study, states, estimate)
                    print(f'{name} {word} {what}\n  {line}', flush=True)

        try:
            run_all(study, todo, show)
        except KeyboardInterrupt:
            print(
                '\nStopped. The same command carries on: mmdet-attn study '
                f'{study.folder}',
                flush=True,
            )
            raise
        due = 0.0
        show()
    results(study)
    failed = [n for n, s in states_of(study).items() if s.word == 'failed']
    if failed:
        raise InputError(
            f'{len(failed)} of {len(study.runs)} trainings failed '
            f'({", ".join(failed[:3])}): mmdet-attn study status '
            f'{study.folder} shows why; the same command tries them again.'
        )


def show_status(study: Study, watch: bool) -> None:
    """Show how far each training is."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)
    while True:
        states = states_of(study)
        console.print(status_table(study, states))
        console.print(summary(study, states))
        words = {state.word for state in states.values()}
        if not watch or words <= {'finished', 'failed'}:
            return
        time.sleep(5)


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
