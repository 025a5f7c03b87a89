"""Notes on the runs of a training."""

import math
from itertools import pairwise

from mmengine.config import Config

from mmdet_attn.study.results.differences import Difference, all_differences
from mmdet_attn.study.results.logs import Run
from mmdet_attn.study.results.setup import AT_START, facts


def of_losses(train: list[dict]) -> list[str]:
    """A note on the first loss that is not a finite number."""
    for record in train:
        if not math.isfinite(record['loss']):
            value = 'NaN' if math.isnan(record['loss']) else 'infinite'
            return [
                f'loss {value} at epoch {record["epoch"]} '
                f'(iteration {record["step"]})'
            ]
    return []


def of_runs(chain: list[Run], logged: int) -> list[str]:
    """Notes on how a training went on after its first run.

    Args:
        chain: The runs whose records count.
        logged: The number of all runs.
    """
    notes = []
    if logged > len(chain):
        notes.append(
            f'started afresh on {chain[0].folder.name}: the log before that '
            'is left out'
        )
    for before, run in pairwise(chain):
        note = f'resumed in epoch {run.train[0]["epoch"]}'
        changes = [
            change
            for change in all_differences(_setup(run), _setup(before))
            if change.what not in AT_START
        ]
        notes.append(note + _changed(changes))
    if any(run.cut for run in chain):
        notes.append('the last line of a log is cut off, and was left out')
    return notes


def _setup(run: Run) -> tuple[dict[str, str], Config]:
    cfg = run.config
    return facts(cfg, run), cfg


def _changed(changes: list[Difference]) -> str:
    listed = [f'{c.what} {c.here}, before {c.there}' for c in changes]
    return f' with other settings: {"; ".join(listed)}' if listed else ''
