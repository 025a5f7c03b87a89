"""Kill trainings: at any moment, and while a checkpoint is written."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

from jobs import Job, until
from lab import LAST, LENGTH, Lab, Try, newest

TARGETS = ('worker', 'launcher', 'script')
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
GONE = 30  # seconds that a job may need to end
START = 120  # seconds that it may need to train one iteration


class Life:
    """A training that is killed again and again, and resumed each time."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.work = lab, lab.new('life')
        self.known = 0  # the iteration of the newest complete checkpoint
        self.tries: list[Try] = []

    def start(self, name: str, *more, **env: str) -> Job:
        """Start or resume; the kill before is judged by how that goes."""
        resume = ['--resume'] if self.work.exists() else []
        job = self.lab.train(self.work, *resume, *more, **env)
        self.tries.append(Try(name))
        return job

    def reach(self, job: Job, iteration: int) -> None:
        """Wait until a start is at an iteration, and check where it began."""
        until(lambda: job.over or max(job.iterations, default=0) >= iteration,
              START)  # fmt: skip
        self.check_begin(job)

    def check_begin(self, job: Job) -> None:
        if job.iterations and len(self.tries) > 1:
            begin = job.iterations[0]
            if begin != self.known + 1:
                self.tries[-2].fail(
                    'lost',
                    f'resumed at iteration {begin}, though {self.known} were '
                    f'in a complete checkpoint. {self.files()}',
                )

    def ended(self, job: Job, polite: bool = False, reached: int = 0) -> None:
        """Judge a kill by what it leaves."""
        found = self.tries[-1]
        if not job.gone(GONE):
            found.fail('hung', f'running after {GONE} s: {job.output}')
        if reached < LAST - LENGTH and LAST in job.iterations:
            found.fail('hung', f'trained on to its end, from {reached}')
        # Once the next epoch runs, the checkpoint of the last is complete.
        before = max(self.known, (reached - 1) // LENGTH * LENGTH)
        if polite:
            before = max(before, reached)
        iteration, weights, file = newest(self.work)
        if iteration < before:
            found.fail(
                'lost',
                f'iteration {before} was done, and the newest complete '
                f'checkpoint is of {iteration}. {self.files()}',
            )
        # Within an epoch, batch norm's statistics are not joined yet.
        named = file is not None and file.name.startswith('epoch_')
        if named and weights != self.lab.reference[iteration]:
            found.fail('lost', f'other weights after iteration {iteration}')
        self.known = iteration

    def files(self) -> list[str]:
        return sorted(
            f'{file.name} {file.stat().st_size}'
            for file in self.work.glob('*')
            if file.is_file()
        )

    def finish(self) -> Iterator[Try]:
        """Resume to the end; the weights must be the undisturbed ones."""
        job = self.lab.train(self.work, '--resume')
        code = job.wait(2 * START)
        found = self.tries[-1]
        self.tries.append(Try('the end'))
        self.check_begin(job)
        if not job.gone(GONE):
            found.fail('hung', f'the resumed training: {job.output}')
        if code:
            found.fail('lost', f'resuming ends with {code}: {job.output}')
        iteration, weights, _ = newest(self.work)
        if iteration != LAST or weights != self.lab.reference[LAST]:
            found.fail(
                'lost', f'other weights at the end, iteration {iteration}'
            )
        yield from self.tries[:-1]


def kills(lab: Lab) -> Iterator[Try]:
    """Kills at seeded moments."""
    rng = lab.random('kills')
    _ = lab.reference
    number, size = (3, 3) if lab.short else (20, 5)
    ways = [(target, sent) for target in TARGETS for sent in SIGNALS]
    plan: list = []
    while len(plan) < number:
        rng.shuffle(ways)
        plan += ways
    del plan[number:]
    while plan:
        life = Life(lab)
        moments = sorted(rng.sample(range(LAST - LENGTH), size))
        for moment in moments[: len(plan)]:
            target, sent = plan.pop()
            job = life.start(f'{sent.name} to the {target} at {moment}')
            if moment:
                life.reach(job, moment)
                time.sleep(rng.uniform(0, 0.3))
            else:
                time.sleep(rng.uniform(0, 8))
            reached = max(job.iterations, default=0)
            job.send(target, sent)
            life.ended(job, sent != signal.SIGKILL, reached)
            if life.known == LAST:
                break  # nothing is left to be killed
        yield from life.finish()


def steps(log: Path) -> list[tuple[float, str]]:
    """When a training did what while it wrote its checkpoints."""
    lines = [line.split(' ', 1) for line in log.read_text().splitlines()]
    return [(float(moment), what) for moment, what in lines]


def writes(lab: Lab) -> Iterator[Try]:
    """Kills at each step of writing a checkpoint, and between the steps."""
    rng = lab.random('writes')
    inside = Path(__file__).parent / 'inside'
    life = Life(lab)
    log = lab.new('steps')

    def start(name, step=0, delay=0.0):
        return life.start(
            name,
            PYTHONPATH=f'{inside}:{inside.parents[2]}',
            FAULTS_FOLDER=str(life.work),
            FAULTS_STEP=str(step),
            FAULTS_DELAY=str(delay),
            FAULTS_LOG=str(log),
        )

    # Two epochs in peace, then a kill: what follows has something to lose.
    job = start('SIGKILL to the worker in epoch 3')
    life.reach(job, 2 * LENGTH + 1)
    job.send('worker', signal.SIGKILL)
    life.ended(job, reached=2 * LENGTH + 1)
    # The second checkpoint has all steps: the first has none to replace.
    made = steps(log)
    while made and 'epoch_2' not in made[0][1]:
        del made[0]
    if not made:
        raise RuntimeError('No step of writing a checkpoint was seen.')
    plan = []
    for number, (moment, what) in enumerate(made, 1):
        plan.append((f'at step {number}, {what}', number, 0.0))
        after = made[number][0] - moment if number < len(made) else 0
        if after > 0.005 and what.startswith('open'):
            plan += [
                (f'{share:.0%} into {what}', number, share * after)
                for share in sorted(rng.uniform(0, 1) for _ in range(3))
            ]
    if lab.short:
        plan = rng.sample(plan, 2)
    for name, step, delay in plan:
        log.unlink(missing_ok=True)
        before = life.known
        job = start(f'SIGKILL {name}', step, delay)
        until(lambda job=job: job.over, START)
        life.check_begin(job)
        life.ended(job, reached=before)
        if life.known == LAST:
            yield from life.finish()
            life = Life(lab)
    yield from life.finish()
