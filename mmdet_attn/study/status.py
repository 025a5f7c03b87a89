"""How far the trainings of a study are, from their files alone."""

import fcntl
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from mmdet_attn.study.plan import Run, Study

FAILED = 'failed.json'
COLOURS = {'finished': 'green', 'running': 'cyan', 'failed': 'red'}


class State(NamedTuple):
    """How far one training is.

    Attributes:
        word: `'finished'`, `'running'`, `'failed'`, `'stopped'`: begun and
            to be carried on; `'waiting'`: not begun.
        epoch: The last epoch that began.
        epochs: All epochs. None if that is unknown yet.
        done: The part of the iterations, from 0 to 1.
        seconds: Training time until now.
        ap: The last box AP in percent.
        error: Why it failed.
    """

    word: str = 'waiting'
    epoch: int = 0
    epochs: int | None = None
    done: float = 0.0
    seconds: float = 0.0
    ap: float | None = None
    error: str = ''

    @property
    def left(self) -> float:
        """The training time that is left, in seconds. NaN if unknown."""
        if self.word == 'finished':
            return 0.0
        if not self.done:
            return float('nan')
        return self.seconds * (1 - self.done) / self.done


def is_locked(folder: Path) -> bool:
    """Whether a training of this machine runs in a work directory."""
    try:
        with open(folder / 'lock', 'r+') as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def read_json(file: Path) -> dict:
    """What a file holds. Empty if it is not there or is being written."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def state_of(folder: Path) -> State:
    """How far the training of a work directory is."""
    facts = read_json(folder / 'facts.json')
    schedule = facts.get('schedule') or {}
    epochs, length = (
        schedule.get(key) for key in ('epochs', 'iterations_per_epoch')
    )
    evaluations = facts.get('evaluations') or [{}]
    ap = ((evaluations[-1].get('bbox') or {}).get('all') or {}).get('AP')
    last = _last_record(folder)
    step = last.get('step', 0) if 'loss' in last else 0
    if not step and last:  # an evaluation counts epochs
        step = last.get('step', 0) * (length or 0)
    done = min(1.0, step / (epochs * length)) if epochs and length else 0.0
    failed = read_json(folder / FAILED)
    word = 'stopped' if step else 'waiting'
    if facts.get('finished'):
        word, done, step = 'finished', 1.0, (epochs or 0) * (length or 0)
    elif is_locked(folder):
        word = 'running'
    elif failed:
        word = 'failed'
    epoch = step // length + 1 if length else 0
    return State(
        word,
        min(epoch, epochs) if epochs else epoch,
        epochs,
        done,
        _seconds(folder, facts),
        None if ap is None else 100 * ap,
        failed.get('error', '') if word == 'failed' else '',
    )


def _last_record(folder: Path) -> dict:
    """The last line of the newest log that is whole."""
    files = sorted(folder.glob('*/vis_data/scalars.json'))
    for file in reversed(files):
        with open(file, 'rb') as log:
            log.seek(max(0, file.stat().st_size - 20000))
            lines = log.read().decode(errors='replace').split('\n')
        for line in reversed(lines):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return {}


def _seconds(folder: Path, facts: dict) -> float:
    """Training time, with that since the last evaluation."""
    if facts.get('finished'):
        return facts.get('seconds') or 0.0
    total = 0.0
    for config in folder.glob('*/vis_data/config.py'):
        log = config.with_name('scalars.json')
        if log.exists():
            total += max(0.0, log.stat().st_mtime - config.stat().st_mtime)
    return total


def duration(seconds: float) -> str:
    """Such as `1:05:20`. A question mark for NaN."""
    if seconds != seconds:
        return '?'
    return str(timedelta(seconds=round(seconds)))


def time_left(states: list[State], at_once: int, estimate: float) -> float:
    """The time until all trainings have ended, in seconds.

    Args:
        states: Of all trainings.
        at_once: How many run at the same time.
        estimate: Seconds of a training that has not begun, where none has
            told yet.
    """
    known = [s.seconds / s.done for s in states if s.done > 0.1]
    each = sum(known) / len(known) if known else estimate
    left = [
        s.left if s.left == s.left else each
        for s in states
        if s.word not in ('finished', 'failed')
    ]
    if not left:
        return 0.0
    return max(sum(left) / at_once, max(left))


def status_table(study: Study, states: dict[str, State]) -> Table:
    """A table with a row for each training."""
    table = Table(title=f'study {escape(study.name)}')
    table.add_column('training', no_wrap=True)
    table.add_column('state', no_wrap=True)
    table.add_column('epoch', justify='right', no_wrap=True)
    table.add_column('', no_wrap=True)
    table.add_column('time', justify='right', no_wrap=True)
    table.add_column('left', justify='right', no_wrap=True)
    table.add_column('box AP', justify='right', no_wrap=True)
    table.add_column('error', overflow='fold')
    for run in study.runs:
        state = states[run.name]
        epochs = f'{state.epoch}/{state.epochs}' if state.epochs else ''
        colour = COLOURS.get(state.word, '')
        busy = state.word in ('running', 'stopped', 'failed')
        table.add_row(
            run.name,
            f'[{colour}]{state.word}[/]' if colour else state.word,
            epochs,
            ProgressBar(1, state.done, width=12) if state.done else '',
            duration(state.seconds) if state.seconds else '',
            duration(state.left) if busy and state.done else '',
            '' if state.ap is None else f'{state.ap:.1f}',
            escape(state.error),
        )
    return table


def states_of(study: Study) -> dict[str, State]:
    """How far each training of a study is, by its name."""
    return {run.name: state_of(study.work_dir(run)) for run in study.runs}


def summary(
    study: Study, states: dict[str, State], estimate: float = float('nan')
) -> str:
    """One line: how many trainings there are of each state, and time left."""
    words = [state.word for state in states.values()]
    counts = [
        f'{words.count(word)} {word}'
        for word in ('finished', 'running', 'stopped', 'waiting', 'failed')
        if word in words
    ]
    left = time_left(list(states.values()), study.launch['at_once'], estimate)
    return (
        f'{len(words)} trainings: {", ".join(counts)}'
        + (f'; about {duration(left)} left' if left else '')
        + time.strftime(' (%H:%M:%S)')
    )


def failure(run: Run, states: dict[str, State]) -> bool:
    """Whether a training has failed."""
    return states[run.name].word == 'failed'
