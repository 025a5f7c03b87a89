"""The results of trainings, each beside its baseline, as plain data."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_attn.errors import InputError
from mmdet_attn.study.facts import read_facts
from mmdet_attn.study.matches import bootstrap_differences, read_matches
from mmdet_attn.study.paper import NOTES, paper_gain, row_of, unlike_paper
from mmdet_attn.study.settings import differences, settings
from mmdet_attn.study.statistics import Difference, over_seeds, spread
from mmdet_attn.study.table import KINDS, NAMES, PLAIN, Run


@dataclass
class Configuration:
    """Runs that are equal except for the seed.

    Attributes:
        base: The detector and its backbone.
        attention: Its label in tables.
        plain: Whether it has no attention.
        runs: Its runs.
    """

    base: str
    attention: str
    plain: bool
    runs: list[Run]

    @property
    def name(self) -> str:
        return f'{self.base}, {self.attention}'

    @property
    def first(self) -> Run:
        """The run that stands for all where the seed does not matter."""
        return next((run for run in self.runs if run.facts), self.runs[0])

    def by_seed(self, finished: bool = True) -> dict[int, Run]:
        """Its runs by their seed: the finished ones, or all."""
        return {
            run.row['seed']: run
            for run in self.runs
            if run.row['seed'] is not None
            and (run.row['finished'] or not finished)
        }


def read_runs(work_dirs: Sequence[str | Path]) -> list[Run]:
    """Read work directories.

    Raises:
        InputError: A folder is given twice, or cannot be read.
    """
    paths = {
        Path(work_dir): Path(work_dir).resolve() for work_dir in work_dirs
    }
    for path, count in Counter(
        map(Path.resolve, map(Path, work_dirs))
    ).items():
        if count > 1:
            raise InputError(f'{path} is given {count} times: once will do.')
    names = Counter(path.name for path in paths.values())
    return [
        Run(
            full.name if names[full.name] == 1 else full.as_posix(),
            path,
            read_facts(path),
        )
        for path, full in paths.items()
    ]


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Group runs that differ in nothing but the seed.

    Runs of a study are grouped by its plan.

    Raises:
        InputError: Two runs of a configuration have the same seed.
    """
    groups: dict[tuple, Configuration] = {}
    for run in runs:
        base, label = run.row['base'], run.row['attention']
        key = base, label, '' if run.plan else _shared(run)
        new = Configuration(base, label, label == PLAIN, [])
        groups.setdefault(key, new).runs.append(run)
    found = list(groups.values())
    labels = Counter(one.name for one in found)
    for one in found:
        for seed, run in one.by_seed(finished=False).items():
            for other in one.runs:
                if other is not run and other.row['seed'] == seed:
                    raise InputError(
                        f'{other.name} and {run.name} are the same training '
                        f'with the seed {seed}: give one of them.'
                    )
        if labels[one.name] > 1:
            one.attention += f' ({one.first.name})'
    return sorted(found, key=lambda one: (one.base, not one.plain))


def _shared(run: Run) -> str:
    """The settings that the runs of a configuration share."""
    shared = {
        key: value
        for key, value in settings(run.facts).items()
        if key not in ('seed', 'device') and not key.startswith('versions.')
    }
    return json.dumps(shared, sort_keys=True)


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """The table of runs, and each configuration beside its baseline.

    Returns:
        Plain data: `runs`, rows of the table, and `configurations`.

    Raises:
        InputError: A run has no baseline of its seed, or two runs of a
            configuration have the same seed.
    """
    found = configurations(runs)
    return {
        'created': datetime.now().astimezone().isoformat(timespec='seconds'),
        'runs': [
            run.row | {'attention': one.attention}
            for one in found
            for run in one.runs
        ],
        'configurations': [_configuration(one, found) for one in found],
    }


def _configuration(one: Configuration, every: list[Configuration]) -> dict:
    rows = [run.row for run in one.runs]
    finished = [row for row in rows if row['finished']]
    facts, model = one.first.facts, one.first.model
    found: dict[str, Any] = {
        'name': one.name,
        'base': one.base,
        'attention': one.attention,
        'runs': [run.name for run in one.runs],
        'seeds': sorted(one.by_seed()),
        'weights': sorted({row['weights'] for row in rows} - {None}),
        'start': settings(facts).get('plugins.start') if facts else None,
        'parameters': one.first.row['parameters'],
        'gflops': one.first.row['gflops'],
        'ap': {
            name: spread([row[name] for row in finished])
            for name in NAMES
            if finished and all(row[name] is not None for row in finished)
        },
        'baseline': None,
        'lacking': None,
        'pairs': [],
        'differences': {},
        'settings': [],
        'paper': {},
        'paper_settings': [],
        'notes': _notes(one),
    }
    if paper := row_of(model, facts):
        found['paper'] = paper_gain(paper)
        found['paper_settings'] = unlike_paper(paper, facts)
        found['notes'] += [NOTES[paper]] if paper in NOTES else []
    if not one.plain:
        found |= _beside(one, _baseline(one, every), found['notes'])
    return found


def _notes(one: Configuration) -> list[str]:
    """What a reader must know of its runs."""
    notes = []
    for run in one.runs:
        row = run.row
        if not row['finished'] and row['epochs']:
            notes.append(
                f'{run.name} is not finished (epoch {row["epoch"]} of '
                f'{row["epochs"]}) and not compared'
            )
        changes = [
            change
            for start in run.facts.get('starts') or ()
            for change in start.get('changed') or ()
        ]
        for key, before, now in changes:
            notes.append(
                f'{run.name} was resumed with {key}: {now}, before: {before}'
            )
        if run is one.first or not run.facts:
            continue
        differs = [
            f'{key}: {here}, {there}'
            for key, here, there in differences(run.facts, one.first.facts)
            if key != 'seed'
        ]
        if differs:
            notes.append(
                f'{run.name} and {one.first.name} differ: {"; ".join(differs)}'
            )
    return notes


def _data(run: Run) -> Any:
    """What tells its validation set from another one."""
    found = settings(run.facts)
    dataset = 'val_dataloader.dataset.'
    names = [found.get(dataset + k) for k in ('ann_file', 'metainfo.classes')]
    return found.get('annotations.val') or names


def _baseline(
    one: Configuration, every: list[Configuration]
) -> Configuration | None:
    """The configuration without attention that differs least otherwise."""
    found = [each for each in every if each.plain and each.base == one.base]
    if one.first.plan:
        return found[0]
    found = [each for each in found if _data(each.first) == _data(one.first)]
    return min(
        found,
        key=lambda each: len(differences(one.first.facts, each.first.facts)),
        default=None,
    )


def _beside(
    one: Configuration, base: Configuration | None, notes: list[str]
) -> dict[str, Any]:
    """The part of a configuration that its baseline decides."""
    if base is None:
        return {
            'lacking': 'no baseline: the same detector, backbone and data '
            'without attention'
        }
    done, there, begun = one.by_seed(), base.by_seed(), base.by_seed(False)
    if missing := sorted(done.keys() - begun.keys()):
        raise InputError(
            f'{", ".join(done[seed].name for seed in missing)}: {base.name} '
            f'has no run with the seed {", ".join(map(str, missing))}, only '
            f'with {", ".join(map(str, sorted(begun))) or "none"}. Train it, '
            'or leave this one out.'
        )
    if one.first.plan and (
        len(done) < len(one.runs) or len(there) < len(base.runs)
    ):
        lacking = (
            f'not complete: {len(done)} of {len(one.runs)} runs, and '
            f'{len(there)} of {len(base.runs)} of the baseline'
        )
        return {'baseline': base.name, 'lacking': lacking}
    for seed in sorted(done.keys() - there.keys()):
        notes.append(f'{begun[seed].name}, its baseline, is not finished')
    if unused := sorted(there.keys() - done.keys()):
        notes.append(
            f'only the baseline has the seed {", ".join(map(str, unused))}: '
            'not compared'
        )
    if any(run.row['seed'] is None for run in [*one.runs, *base.runs]):
        notes.append('a run whose seed is unknown is not compared')
    pairs = sorted(done.keys() & there.keys())
    both = [(done[seed], there[seed]) for seed in pairs]
    differs = {
        each.key: each
        for run, its in both
        for each in differences(run.facts, its.facts)
        if not each.of_attention
    }
    found = _differences(both)
    return {
        'baseline': base.name,
        'pairs': pairs,
        'lacking': None if found else 'no pair of finished runs with AP',
        'settings': list(differs.values()),
        'differences': found,
    }


def _differences(pairs: list[tuple[Run, Run]]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in NAMES:
        ap, base = ([pair[i].row[name] for pair in pairs] for i in (0, 1))
        if None in (*ap, *base) or not pairs:
            continue
        one = over_seeds(ap, base)
        if one.low is None and name.endswith('AP'):
            one = _over_images(*pairs[0], name) or one
        found[name] = {
            **one._asdict(),
            'each': np.subtract(ap, base).tolist(),
            'method': one.method,
            'verdict': one.verdict,
        }
    return found


def _over_images(run: Run, base: Run, name: str) -> Difference | None:
    """The difference over images, if both have kept their matches."""
    kind = next(k for k, prefix in KINDS.items() if name == f'{prefix}AP')
    mine, its = (
        read_matches(each.work_dir, each.facts.get('matches')).get(kind)
        for each in (run, base)
    )
    if mine is None or its is None:
        return None
    mean, low, high = (100 * x for x in bootstrap_differences(mine, its))
    return Difference(mean, low, high, 1, len(mine.images))
