"""A study that is killed, stopped and carried on, here and on Slurm."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import DEMO, NO_WORKERS, ROOT
from slurm import NoSlurmError, start_slurm, wait_until

from mmdet_attn.commands import study as command
from mmdet_attn.errors import user_errors
from mmdet_attn.study import execute
from mmdet_attn.study.plan import Run, Study, read_study
from mmdet_attn.study.status import is_locked, states_of

ITERATIONS = 4  # of a training of no network
REAL = 16  # of the small detector
# It keeps to what a real training does: a lock, a checkpoint after each
# iteration, SIGTERM after the next one, facts at its end.
TRAINING = """
import fcntl, os, signal, sys, time
os.chdir(sys.argv[1])
lock = open('lock', 'a')
try:
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open('refused', 'a')
    sys.exit('the lock is held')
if os.path.exists('facts.json'):
    open('repeated', 'a')
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
if os.path.exists('fails'):
    os.remove('fails')
    sys.exit('it fails once')
steps = open('steps', 'ab', buffering=0)
while steps.tell() < int(sys.argv[2]):
    time.sleep(0.01)
    steps.write(b'.')
    if stopped:
        sys.exit(143)
with open('facts.part', 'w') as file:
    file.write('{"finished": true}')
os.rename('facts.part', 'facts.json')
"""
slow = pytest.mark.slow


def dummies(folder: Path, count: int, at_once: int) -> Study:
    """A study of which nothing is built."""
    runs = [Run({'name': 'a'}, {'name': 'none'}, s) for s in range(count)]
    launch = {'kind': 'local', 'gpus': 0, 'at_once': at_once, 'cores': 1}
    return Study('dummies', folder, None, {}, launch, runs, '')


class Call:
    """The command `study`, in a process of its own.

    A fork: it need not import everything again.
    """

    def __init__(self, study: Study, log: Path) -> None:
        self.study = study
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(output, 1)
                os.dup2(output, 2)
                # pytest's own are those of the test.
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
                with user_errors():
                    command.take(study)
                    command.run(study, 1.0)
                status = 0
            except SystemExit as stop:
                status = int(stop.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def end(self, number: int = 0) -> int:
        """Send a signal, and wait; the exit status as of `Popen`."""
        if number:
            os.kill(self.pid, number)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def trainings(folder: Path) -> list[int]:
    """The processes whose command line names a folder."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            words = (path / 'cmdline').read_bytes().split(b'\0')
            if any(str(folder).encode() in word for word in words):
                found.append(int(path.name))
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Trainings of a few milliseconds, eight at once on any machine."""
    cores = execute.available_cores()
    monkeypatch.setattr(execute, 'available_cores', lambda: cores * 8)
    monkeypatch.setattr(execute, 'PAUSE', 0.01)
    monkeypatch.setattr(command, 'results', lambda study: None)
    python = [sys.executable, '-S', '-E', '-c', TRAINING]
    monkeypatch.setattr(
        execute,
        'command',
        lambda study, run: [
            *(*python, str(study.work_dir(run)), str(ITERATIONS))
        ],
    )
    yield
    for pid in trainings(tmp_path):  # of a test that has failed
        os.kill(pid, signal.SIGKILL)


@slow
def test_killed_at_random_moments(tmp_path, fake):
    """200 trainings: none is lost, none is done twice."""
    seed = random.SystemRandom().randrange(10**6)
    print(f'seed {seed}')
    chance = random.Random(seed)
    study = dummies(tmp_path / 'study', 200, 8)
    for run in chance.sample(study.runs, 5):
        study.work_dir(run).mkdir(parents=True)
        (study.work_dir(run) / 'fails').touch()
    ends = []
    for _ in range(12):
        call = Call(study, tmp_path / 'log')
        time.sleep(chance.uniform(0.05, 0.4))
        whom = chance.choice(['study', 'training', 'both'])
        victims = trainings(study.folder / 'runs')
        if whom != 'study' and victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
        if whom != 'training':
            how = chance.choice(
                [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
            )
            ends.append(call.end(how))
        else:
            time.sleep(0.1)
            ends.append(call.end(signal.SIGINT))
    for _ in range(3):  # what has failed is tried again by the next one
        ends.append(Call(study, tmp_path / 'log').end())
    print(ends, (tmp_path / 'log').read_text()[-3000:])
    assert ends[-1] == 0
    # SIGTERM may come before there is anything to stop.
    killed = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
    assert set(ends) <= {0, 2, 143, *killed}
    states = states_of(study)
    assert {state.word for state in states.values()} == {'finished'}
    for run in study.runs:
        folder = study.work_dir(run)
        assert (folder / 'steps').stat().st_size == ITERATIONS, run
        assert not (folder / 'repeated').exists(), run
        assert not (folder / 'refused').exists(), run
        assert not (folder / 'fails').exists(), run
    assert not trainings(study.folder)


def test_failed_trainings(tmp_path, fake):
    """They do not stop the others, and only the next call tries again."""
    study = dummies(tmp_path / 'study', 6, 2)
    for run in study.runs[:2]:
        study.work_dir(run).mkdir(parents=True)
        (study.work_dir(run) / 'fails').touch()
    log = tmp_path / 'log'
    assert Call(study, log).end() == 2
    text = log.read_text()
    assert '2 of 6 trainings have not finished (a_none_seed0' in text
    assert 'a_none_seed1: it fails once' in text
    states = states_of(study)
    assert [s.word for s in states.values()] == ['failed'] * 2 + [
        'finished'
    ] * 4
    assert Call(study, log).end() == 0
    assert not list(study.folder.glob('runs/*/failed.json'))


def test_ends_without_a_result(tmp_path, fake, monkeypatch):
    study = dummies(tmp_path / 'study', 2, 2)
    words = iter([['true'], ['sh', '-c', 'echo said; kill -9 $$']])
    monkeypatch.setattr(execute, 'command', lambda *_: next(words))
    execute.run_here(study, study.runs, lambda: None)
    assert [state.error for state in states_of(study).values()] == [
        'ended without a result: it has said nothing',
        'ended by SIGKILL',
    ]


def test_one_command_at_a_time(tmp_path, fake):
    """Another one is refused; it waits for what a killed one has left."""
    study = dummies(tmp_path / 'study', 1, 1)
    with pytest.MonkeyPatch.context() as patch:
        # One that nothing but SIGKILL ends.
        stubborn = TRAINING.replace('.append(1)', '.copy()')
        python = [sys.executable, '-S', '-E', '-c', stubborn]
        folder = str(study.work_dir(study.runs[0]))
        patch.setattr(execute, 'command', lambda *_: [*python, folder, '300'])
        first = Call(study, tmp_path / 'first')
        wait_until(lambda: Path(folder, 'steps').exists(), 20)
    assert Call(study, tmp_path / 'second').end() == 2
    text = (tmp_path / 'second').read_text()
    assert 'another command runs this study' in text
    assert str(first.pid) in text
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert is_locked(Path(folder))
    assert Call(study, tmp_path / 'third').end() == 0
    assert Path(folder, 'steps').stat().st_size == 300
    assert not Path(folder, 'refused').exists()
    assert not Path(folder, 'repeated').exists()


def test_trainings_of_a_killed_command_stop(tmp_path, fake, monkeypatch):
    study = dummies(tmp_path / 'study', 2, 2)
    monkeypatch.setattr(sys.modules[__name__], 'ITERATIONS', 10**6)
    call = Call(study, tmp_path / 'log')
    steps = [study.work_dir(run) / 'steps' for run in study.runs]
    wait_until(lambda: all(file.exists() for file in steps), 20)
    call.end(signal.SIGKILL)
    wait_until(lambda: not trainings(study.folder), 20)
    assert all(0 < file.stat().st_size < 10**6 for file in steps)


def test_ctrl_c_twice(tmp_path, fake, monkeypatch):
    """The second one ends trainings that do not stop."""
    study = dummies(tmp_path / 'study', 3, 2)
    monkeypatch.setattr(
        execute,
        'command',
        lambda *_: [
            'sh',
            '-c',
            'trap "" TERM; touch "$0"; sleep 60',
            str(tmp_path / 'there'),
        ],
    )
    call = Call(study, tmp_path / 'log')
    wait_until((tmp_path / 'there').exists, 20)
    os.kill(call.pid, signal.SIGINT)
    time.sleep(0.2)
    assert call.end(signal.SIGINT) == -signal.SIGINT
    assert 'The same command carries on' in (tmp_path / 'log').read_text()
    states = states_of(study)
    assert {state.word for state in states.values()} == {'waiting'}


def study_file(folder: Path, data: Path, **changes) -> Path:
    """A study of one small detector, with and without attention."""
    options = dict(option.split('=') for option in NO_WORKERS)
    content = {
        'name': 'small',
        'work_dir': str(folder / 'study'),
        'data_root': str(data),
        'base': [{'name': 'demo', 'config': DEMO}],
        'attention': ['eca'],
        'seeds': [0],
        'epochs': 2,
        'options': {
            **{key: yaml.safe_load(value) for key, value in options.items()},
            'train_dataloader.batch_size': 1,
            'train_cfg.val_interval': 2,
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.interval': 1,
            'model.test_cfg.rcnn.score_thr': 0.0,
        },
        **changes,
    }
    file = folder / 'study.yaml'
    file.write_text(yaml.safe_dump(content))
    return file


def start(file: Path, env: dict[str, str]) -> subprocess.Popen:
    """The command `study`, as a user gives it. Its output is a file."""
    with open(file.with_suffix('.log'), 'a') as log:
        return subprocess.Popen(
            [sys.executable, 'tools/study.py', str(file)],
            cwd=ROOT,
            env=env | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def steps(study: Study, run: Run) -> list[int]:
    """The iterations that a training has logged, in all its starts."""
    files = sorted(study.work_dir(run).glob('*/vis_data/scalars.json'))
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [json.loads(line)['step'] for line in lines if '"loss"' in line]


def await_steps(study: Study, count: int, process: subprocess.Popen) -> None:
    """Wait until all trainings that run have done some iterations more."""
    before = [len(steps(study, run)) for run in study.runs]

    def reached() -> bool:
        assert process.poll() is None
        return all(
            len(steps(study, run)) >= least + count
            for run, least in zip(study.runs, before, strict=True)
        )

    wait_until(reached)


def check_results(study: Study) -> None:
    """All trainings have finished, and are in the results."""
    states = states_of(study)
    assert {state.word for state in states.values()} == {'finished'}
    rows = (study.folder / 'results.csv').read_text().splitlines()
    assert len(rows) == 1 + len(study.runs)
    for run in study.runs:
        done = set(steps(study, run))
        assert done == set(range(1, REAL + 1))


def kill_training(folder: Path) -> None:
    """End the process that holds the lock of a work directory."""
    holder = (folder / 'lock').read_text()
    os.kill(int(re.search(r'process (\d+)', holder)[1]), signal.SIGKILL)


@slow
def test_real_trainings(shapes, tmp_path):
    """Ctrl-C; then SIGKILL of the command and of one training at once."""
    launch = {'kind': 'local', 'at_once': 2, 'cores': 1}
    file = study_file(tmp_path, shapes, launch=launch)
    study, env = read_study(file), {**os.environ}
    log = file.with_suffix('.log')
    killed, other = study.runs
    call = start(file, env)
    await_steps(study, 1, call)
    call.send_signal(signal.SIGINT)
    assert call.wait(60) == -signal.SIGINT
    assert not trainings(study.folder)
    assert 'The same command carries on' in log.read_text()
    call = start(file, env)
    await_steps(study, 1, call)
    kill_training(study.work_dir(killed))
    call.kill()
    call.wait(60)
    wait_until(lambda: not trainings(study.folder), 60)
    call = start(file, env)
    assert call.wait(240) == 0, log.read_text()[-3000:]
    check_results(study)
    # It has saved each time: no iteration was done twice.
    assert len(steps(study, other)) == REAL
    facts = json.loads((study.work_dir(other) / 'facts.json').read_text())
    assert len(facts['starts']) == 3


@pytest.fixture
def slurm(tmp_path_factory):
    try:
        with start_slurm(tmp_path_factory.mktemp('slurm')) as slurm:
            bin_dir = Path(sys.executable).parent
            path = f'{bin_dir}{os.pathsep}{slurm.env["PATH"]}'
            slurm.env |= {'PATH': path}
            yield slurm
    except NoSlurmError as reason:
        pytest.skip(f'needs a Slurm, but {reason}')


@slow
def test_array_of_slurm(slurm, shapes, tmp_path):
    """Ctrl-C leaves the jobs; one is requeued, one is killed."""
    launch = {'kind': 'slurm', 'partition': 'low', 'cores': 1, 'time': 30}
    more = {'launch': launch, 'attention': ['none']}
    file = study_file(tmp_path, shapes, seeds=[0, 1], **more)
    study, log = read_study(file), file.with_suffix('.log')

    def queued() -> list[str]:
        return slurm('squeue', '--noheader', '--array', '-o%i').split()

    def submitted() -> list[list[str]]:
        return list(
            json.loads((study.folder / 'jobs.json').read_text()).items()
        )

    call = start(file, slurm.env)
    await_steps(study, 1, call)
    first = queued()
    assert len(first) == 2
    # As a preemption does.
    slurm('scontrol', 'requeue', first[0])
    call.send_signal(signal.SIGINT)
    assert call.wait(60) == -signal.SIGINT
    text = log.read_text()
    ((name, _),) = submitted()
    assert 'The jobs go on' in text
    assert f'scancel --name={name}' in text
    wait_until(lambda: 'PENDING' in slurm('squeue', '-h', '--array', '-o%T'))
    slurm('scontrol', 'update', f'JobId={first[0]}', 'StartTime=now+2')
    call = start(file, slurm.env)
    assert call.wait(300) == 0, log.read_text()[-3000:]
    assert len(submitted()) == 1
    check_results(study)
    for run in study.runs:
        assert len(steps(study, run)) == REAL

    # A new seed: what has finished is not submitted again.
    file = study_file(tmp_path, shapes, seeds=[0, 1, 2], **more)
    study = read_study(file)
    new = study.runs[2]
    call = start(file, slurm.env)
    wait_until(lambda: steps(study, new))
    kill_training(study.work_dir(new))
    assert call.wait(120) == 2, log.read_text()[-3000:]
    assert f'{new.name}: ended by SIGKILL' in log.read_text()
    assert states_of(study)[new.name].word == 'failed'
    call = start(file, slurm.env)
    assert call.wait(240) == 0, log.read_text()[-3000:]
    check_results(study)
    assert [names for _, names in submitted()][1:] == [[new.name]] * 2
