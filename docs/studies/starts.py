"""The decision of the studies on starts, as their protocol has it.

python docs/studies/starts.py work_dirs/start_shapes work_dirs/start_bccd

Audits are read from audits/ in a folder. audits.sh makes them.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

MODULES = ('se', 'eca', 'cbam')
STARTS = ('paper', 'alpha', 'zero', 'ramp')
Results = dict[str, dict[int, list[float]]]


def read(folder: str | Path) -> Results:
    """Box AP of each evaluation, by name of the attention and by seed."""
    found: Results = {}
    for file in Path(folder).glob('runs/*/facts.json'):
        facts = json.loads(file.read_text())
        if not facts['finished']:
            raise SystemExit(f'{file.parent} has not finished.')
        curve = [e['bbox']['all']['AP'] for e in facts['evaluations']]
        name = file.parent.name.removeprefix('faster_rcnn_')
        attention = name.rpartition('_seed')[0]
        found.setdefault(attention, {})[facts['seed']] = curve
    return found


def mean_difference(
    one: list[np.ndarray], two: list[np.ndarray]
) -> np.ndarray:
    """Points of AP for each seed: the mean over the modules."""
    return 100 * (np.mean(one, 0) - np.mean(two, 0))


def interval(differences: np.ndarray, level: float) -> tuple[float, float]:
    """Student's t."""
    found = stats.ttest_1samp(differences, 0).confidence_interval(level)
    return float(found.low), float(found.high)


def decide(intervals: list[tuple[float, float]]) -> bool:
    """Whether a start is better than alpha: intervals of all data sets."""
    return any(low > 0 for low, _ in intervals) and all(
        high >= 0 for _, high in intervals
    )


def show_audits(folder: str | Path) -> None:
    """AP with the factors replaced, and where the factors differ from 1."""
    for module in MODULES:
        for start in STARTS:
            file = Path(folder, 'audits', f'{module}_{start}', 'audit.json')
            if not file.is_file():
                continue
            (group,) = json.loads(file.read_text())['groups']
            ap = {k: 100 * v['bbox'] for k, v in group['ap'].items()}
            shares = {k: 100 * v for k, v in (group['shares'] or {}).items()}
            print(
                f'{module}_{start:5} {group["verdict"]:8}',
                *(f'{key} {value:.1f}' for key, value in ap.items()),
                '| percent of E[(F - 1)^2]:',
                *(f'{key} {value:.1f}' for key, value in shares.items()),
            )


def main(folders: list[str]) -> None:
    kept: dict[str, list[tuple[float, float]]] = {'zero': [], 'ramp': []}
    for folder in folders:
        results = read(folder)
        seeds = sorted(results['none'])

        def at(name: str, evaluation: int) -> np.ndarray:
            return np.array([results[name][s][evaluation] for s in seeds])  # noqa: B023

        print(f'{folder}, seeds {seeds}: AP at the end {at("none", -1)}')
        for module in MODULES:
            for start in STARTS:
                name = f'{module}_{start}'
                first, last = (100 * at(name, i).mean() for i in (0, -1))
                change = 100 * (at(name, -1) - at('none', -1))
                low, high = interval(change, 0.95)
                print(
                    f'{name:10} inserted {first:.1f}, at the end {last:.1f}, '
                    f'{change.mean():+.1f} ({low:+.1f} to {high:+.1f}) '
                    'beside none'
                )
        show_audits(folder)
        for start, intervals in kept.items():
            one, two = (
                [at(f'{module}_{s}', -1) for module in MODULES]
                for s in (start, 'alpha')
            )
            change = mean_difference(one, two)
            intervals.append(interval(change, 0.975))
            low, high = intervals[-1]
            print(
                f'{start} against alpha, mean of the modules: '
                f'{change.mean():+.2f} (97.5 %: {low:+.2f} to {high:+.2f})'
            )
    for start, intervals in kept.items():
        better = 'better than' if decide(intervals) else 'not seen to beat'
        print(f'{start} is {better} alpha.')


if __name__ == '__main__':
    main(sys.argv[1:])
