"""How far the trainings of a study are, from their files alone."""

import contextlib
import fcntl
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mmdet_attn.study.plan import Study

FAILED = 'failed.json'
LOG = 'train.log'
# In the order in which a table that is too long shows them.
COLOURS = {
    'running': 'cyan',
    'failed': 'red',
    'stopped': '',
    'queued': '',
    'waiting': '',
    'finished': 'green',
}


class State(NamedTuple):
    """How far one training is.

    Attributes:
        word: `'finished'`, `'running'`, `'failed'`, `'stopped'`: begun and
            to be carried on; `'queued'`: of Slurm; `'waiting'`: not begun.
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
        with open(folder / 'lock') as file:
            # Shared, which needs no right to write.
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        # PermissionError has EACCES, too.
        return isinstance(error, BlockingIOError)
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
            if line.startswith('{'):
                with contextlib.suppress(ValueError):
                    return json.loads(line)
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


def status_table(
    study: Study, states: dict[str, State], most: int | None = None
) -> Table:
    """A table with a row for each training.

    Args:
        study: The study.
        states: Of all trainings, by their names.
        most: How many rows there may be: those of running trainings come
            first. None is all, in the order of the study.
    """
    names = [run.name for run in study.runs]
    title = f'study {escape(study.name)}'
    if most is not None and len(names) > most:
        order = list(COLOURS)
        names.sort(key=lambda name: order.index(states[name].word))
        title += f': {most} of {len(names)} trainings'
        names = names[:most]
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column('training', overflow='fold')
    table.add_column('state', no_wrap=True)
    for head in ('epoch', 'done', 'time', 'left', 'box AP'):
        table.add_column(head, justify='right', no_wrap=True)
    for name in names:
        state = states[name]
        busy = state.word in ('running', 'stopped', 'queued', 'failed')
        table.add_row(
            name,
            Text(state.word, COLOURS[state.word]),
            f'{state.epoch}/{state.epochs}' if state.epochs else '',
            f'{state.done:.0%}' if state.done else '',
            duration(state.seconds) if state.seconds else '',
            duration(state.left) if busy and state.done else '',
            '' if state.ap is None else f'{state.ap:.1f}',
        )
    return table


def errors(states: dict[str, State]) -> list[str]:
    """Why trainings have failed, one line for each."""
    return [f'{n}: {s.error}' for n, s in states.items() if s.error]


def states_of(study: Study) -> dict[str, State]:
    """How far each training of a study is, by its name."""
    states = {run.name: state_of(study.work_dir(run)) for run in study.runs}
    if study.launch['kind'] == 'slurm':
        from mmdet_attn.study.slurm_array import queue

        for name, word in (queue(study) or {}).items():
            if states.get(name, State('finished')).word != 'finished':
                states[name] = states[name]._replace(word=word, error='')
    return states


def summary(
    study: Study, states: dict[str, State], estimate: float = float('nan')
) -> str:
    """One line: how many trainings there are of each state, and time left."""
    words = [state.word for state in states.values()]
    counts = [
        f'{words.count(word)} {word}'
        for word in reversed(COLOURS)
        if word in words
    ]
    left = time_left(list(states.values()), study.launch['at_once'], estimate)
    return (
        f'{len(words)} trainings: {", ".join(counts)}'
        + (f'; about {duration(left)} left' if left > 0 else '')
        + time.strftime(' (%H:%M:%S)')
    )
