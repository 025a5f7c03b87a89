"""Trainings and tests in jobs of a real Slurm, in CPU processes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import (
    DEMO,
    QUICK,
    ROOT,
    box_ap,
    last_checkpoint,
    once_per_run,
    user_error,
)
from slurm import NoSlurmError, start_slurm, wait_until

from mmdet_attn.errors import InputError
from mmdet_attn.launch import resume_at_start
from mmdet_attn.training.slurm import first_node, use_step

SBATCH = ['sbatch', '--parsable', '--gres=none', '--ntasks=2']
SBATCH += ['--ntasks-per-node=2', '--cpus-per-task=1']
STEP = {
    'SLURM_JOB_ID': '7',
    'SLURM_STEP_ID': '0',
    'SLURM_PROCID': '3',
    'SLURM_LOCALID': '1',
    'SLURM_STEP_NUM_TASKS': '4',
    'SLURM_STEP_NUM_NODES': '2',
    'SLURM_STEP_NODELIST': 'gpu[03-05,9],cpu1',
}
TORCH = ('MASTER_ADDR', 'MASTER_PORT')
ITERATION = r'Epoch\(train\) \[\d]\[\d/4]'
slow = pytest.mark.slow


@pytest.fixture(scope='session')
def slurm(tmp_path_factory):
    try:
        with start_slurm(tmp_path_factory.mktemp('slurm')) as slurm:
            bin_dir = Path(sys.executable).parent
            slurm.env |= {
                'PATH': f'{bin_dir}{os.pathsep}{slurm.env["PATH"]}',
                'SRUN_ARGS': '--gres=none',
                'OMP_NUM_THREADS': '1',
            }
            yield slurm
    except NoSlurmError as reason:
        pytest.skip(f'needs a Slurm, but {reason}')


def options(data, seed=0) -> list[str]:
    """Two epochs of four iterations in two processes."""
    changes = [*QUICK, 'train_dataloader.batch_size=1']
    changes.append(f'randomness.seed={seed}')
    return ['--data-root', str(data), '--cfg-options', *changes]


@pytest.fixture(scope='session')
def undisturbed(tmp_path_factory, slurm, shapes) -> Path:
    """Two jobs of an array, at the same time on one node."""

    def train(folder):
        folder.mkdir()
        task = '$SLURM_ARRAY_TASK_ID'
        command = ['tools/sbatch_train.sh', DEMO, f'{folder}/{task}']
        command = ' '.join([*command, *options(shapes, seed=task)])
        output = f'--output={folder}/%a.txt'
        array = ['--array=0-1', '--nodelist=127.0.0.1', output]
        await_end(slurm, slurm(*SBATCH, *array, '--wrap', command))

    return once_per_run(tmp_path_factory, 'undisturbed', train)


def start_again(slurm, job) -> None:
    """Start a requeued job in seconds, not in two minutes.

    Nodes refuse it within the second in which they have ended it.
    """
    wait_until(lambda: slurm.state(job) == 'PENDING')
    slurm('scontrol', 'update', f'JobId={job}', 'StartTime=now+2')


def await_end(slurm, job) -> None:
    """Wait for a job; `sbatch --wait` looks every 32 seconds only."""
    wait_until(lambda: job not in slurm('squeue', '--format=%A %F').split())


def await_iterations(output: Path, count: int) -> None:
    wait_until(
        lambda: (
            output.exists()
            and len(re.findall(ITERATION, output.read_text())) >= count
        )
    )


def processes(slurm) -> dict[str, int]:
    """Process ids of the training that runs on this Slurm, by rank."""
    found = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            words = (folder / 'environ').read_bytes().decode().split('\0')
            command = (folder / 'cmdline').read_bytes().decode().split('\0')
        except OSError:
            continue  # it has ended
        env = dict(word.split('=', 1) for word in words if '=' in word)
        conf = slurm.env['SLURM_CONF']
        if env.get('SLURM_CONF') == conf and 'python' in command[0]:
            found[env['SLURM_PROCID']] = int(folder.name)
    return found


@slow
def test_jobs_of_an_array(undisturbed):
    for job in ('0', '1'):
        log = (undisturbed / f'{job}.txt').read_text()
        assert len(re.findall(ITERATION, log)) == 8
        assert last_checkpoint(undisturbed / job).name == 'epoch_2.pth'
    assert differences(undisturbed / '0', undisturbed / '1')


def differences(one: Path, other: Path) -> list[str]:
    """Weights that are not the same, bit for bit, at the end."""
    states = [
        torch.load(last_checkpoint(work), weights_only=False)['state_dict']
        for work in (one, other)
    ]
    assert states[0].keys() == states[1].keys()
    return [
        key
        for key, value in states[0].items()
        if not torch.equal(value, states[1][key])
    ]


@slow
def test_requeued_and_preempted(slurm, undisturbed, shapes, tmp_path):
    """A job on two nodes, requeued at its start, then preempted."""
    work, output = tmp_path / 'work', tmp_path / 'output'
    job = slurm(
        *(*SBATCH, '--nodes=2', '--ntasks-per-node=1', '--partition=grace'),
        *(f'--output={output}', 'tools/sbatch_train.sh', DEMO, work),
        *options(shapes),
    )
    wait_until((work / 'lock').exists)
    slurm('scontrol', 'requeue', job)
    start_again(slurm, job)
    assert 'Stopped by SIGTERM after iteration 1 of 8' in output.read_text()
    await_iterations(output, 2)
    slurm('srun', '--partition=high', '--nodes=2', '--exclusive', 'true')
    start_again(slurm, job)
    wait_until(lambda: slurm.state(job) not in ('PENDING', 'RUNNING'))

    log = output.read_text()
    assert slurm.state(job) == 'COMPLETED', log
    assert log.count('Stopped by SIGTERM') == 2
    # None was lost, none was done twice.
    done = re.findall(ITERATION, log)
    assert len(done) == len(set(done)) == 8
    assert not differences(work, undisturbed / '0')


@slow
def test_cancelled(slurm, shapes, tmp_path):
    """It saves, and is not requeued."""
    work, output = tmp_path / 'work', tmp_path / 'output'
    job = slurm(
        *(*SBATCH, f'--output={output}', 'tools/sbatch_train.sh', DEMO, work),
        *options(shapes),
    )
    await_iterations(output, 1)
    slurm('scancel', job)
    wait_until(lambda: slurm.state(job) == 'CANCELLED')
    wait_until(lambda: not processes(slurm))
    assert 'Stopped by SIGTERM' in output.read_text()
    assert last_checkpoint(work).name.startswith('iter_')


@slow
def test_bad_input(slurm, shapes, tmp_path):
    """The job is not requeued: no process hides the code of another."""
    output = tmp_path / 'output'
    job = slurm(
        *(*SBATCH, f'--output={output}', '--wrap'),
        f'tools/sbatch_train.sh {DEMO} {tmp_path} --data-root none; '
        'echo code $?',
    )
    await_end(slurm, job)
    log = output.read_text()
    assert 'train.py: error: none: no such folder' in log
    assert 'code 2' in log


@slow
def test_killed_process(slurm, shapes, tmp_path):
    """The others end with it, and srun tells the exit code."""
    output = tmp_path / 'output'
    with output.open('w') as stream:
        script = subprocess.Popen(
            [
                *('tools/slurm_train.sh', 'low', 'name', DEMO, tmp_path),
                *options(shapes),
            ],
            env=slurm.env
            | {'GPUS': '2', 'GPUS_PER_NODE': '2', 'CPUS_PER_TASK': '1'},
            stdout=stream,
            stderr=stream,
            cwd=ROOT,
        )
    await_iterations(output, 1)
    os.kill(processes(slurm)['1'], signal.SIGKILL)
    assert script.wait(240) == 128 + signal.SIGKILL
    assert not processes(slurm)
    wait_until(lambda: not slurm('squeue', '--noheader'), 60)


@slow
def test_evaluation(slurm, undisturbed, shapes):
    work = undisturbed / '0'
    checkpoint = last_checkpoint(work)
    slurm.env |= {'GPUS': '2', 'GPUS_PER_NODE': '2', 'CPUS_PER_TASK': '1'}
    log = slurm(
        *('tools/slurm_test.sh', 'low', 'name', DEMO, checkpoint),
        *('--work-dir', work / 'test', *options(shapes)),
    )
    assert box_ap(log) == box_ap((undisturbed / '0.txt').read_text())


@slow
def test_first_node(slurm):
    for nodes in ('n1', 'n[08-10],m2', 'x1,y1'):
        named = slurm('scontrol', 'show', 'hostnames', nodes).split()
        assert first_node(nodes) == named[0]


def test_variables_of_a_step(monkeypatch):
    for name in TORCH:
        monkeypatch.delenv(name, raising=False)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    use_step()
    found = [os.environ[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')]
    assert found == ['3', '1', '4']
    assert os.environ['MASTER_ADDR'] == 'gpu03'
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    use_step()
    assert os.environ['LOCAL_RANK'] == '0'

    # What the user has set stays; another step has another port.
    ports = {os.environ.pop('MASTER_PORT')}
    monkeypatch.setenv('SLURM_STEP_ID', '1')
    monkeypatch.setenv('MASTER_ADDR', 'other')
    use_step()
    ports.add(os.environ.pop('MASTER_PORT'))
    monkeypatch.setenv('SLURM_JOB_ID', '8')
    use_step()
    ports.add(os.environ['MASTER_PORT'])
    assert os.environ['MASTER_ADDR'] == 'other'
    assert len(ports) == 3
    assert all(1024 < int(port) < 32768 for port in ports)


def test_not_under_srun():
    """A batch script has Slurm's variables, but only one process."""
    os.environ['SLURM_PROCID'] = '0'
    message = user_error('tools/train.py', DEMO, '--launcher', 'slurm')
    assert 'tools/slurm_train.sh PARTITION' in message


def test_a_batch_job_may_start_again(tmp_path, monkeypatch):
    monkeypatch.setenv('SLURM_JOB_ID', '7')
    monkeypatch.setenv('ENVIRONMENT', 'BATCH')
    assert resume_at_start(None, tmp_path) is None
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(InputError, match='of an earlier training'):
        resume_at_start(None, tmp_path)
    assert resume_at_start('auto', tmp_path) == 'auto'
    monkeypatch.delenv('ENVIRONMENT')  # started by srun alone
    assert resume_at_start(None, tmp_path) is None
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert resume_at_start(None, tmp_path) == 'auto'
