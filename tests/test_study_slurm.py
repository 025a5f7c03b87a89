"""What a study asks of Slurm; Slurm's programs are small scripts here."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmdet_attn.errors import InputError
from mmdet_attn.study import slurm_array
from mmdet_attn.study.plan import Run, Study
from mmdet_attn.study.status import State, state_of, states_of

PROGRAMS = {
    'sbatch': 'cp "$1" {0}/submitted || exit 1; '
    'cat {0}/refusal >&2 && exit 1; echo Submitted batch job 7',
    'srun': 'exit 1',
    'sinfo': 'echo "(null)"; echo "gpu:8(S:0-1)"',
    'squeue': 'cat {0}/queue',
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with the queue, and with what was submitted."""
    for name, script in PROGRAMS.items():
        file = tmp_path / 'bin' / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/sh\n{script.format(tmp_path)} 2> /dev/null\n')
        file.chmod(0o755)
    path = f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}'
    monkeypatch.setenv('PATH', path)
    (tmp_path / 'queue').touch()
    # It asks each time, and does not wait.
    clock = SimpleNamespace(sleep=lambda _: None, time=time.perf_counter)
    monkeypatch.setattr(slurm_array, 'time', clock)
    monkeypatch.setattr(slurm_array, 'PAUSE', 1e-9)
    return tmp_path


def study_of(folder: Path, count: int = 3, **launch) -> Study:
    runs = [Run({'name': 'a'}, {'name': 'none'}, s) for s in range(count)]
    given = {'kind': 'slurm', 'gpus': 2, 'at_once': 2, 'time': 60, **launch}
    return Study('some', folder / 'study', None, {}, given, runs, '')


def test_submission(cluster):
    study = study_of(
        cluster,
        partition='gpu',
        nodes=2,
        cores=5,
        parameters={'account': 'vision', 'setup': ['module load cuda']},
    )
    study.folder.mkdir()
    slurm_array.run_there(study, study.runs, lambda: None)
    lines = (cluster / 'submitted').read_text().splitlines()
    for option in (
        *('account=vision', 'array=0-2%2', 'cpus-per-task=5', 'nodes=2'),
        *('gpus-per-node=2', 'ntasks-per-node=2', 'partition=gpu'),
        *('requeue', 'signal=TERM@120', 'time=60', 'open-mode=append'),
    ):
        assert f'#SBATCH --{option}' in lines
    assert 'module load cuda' in lines
    assert 'export OMP_NUM_THREADS=5' in lines
    (srun,) = (line for line in lines if line.startswith('srun '))
    assert '--kill-on-bad-exit=1 --cpus-per-task=5' in srun
    ((name, names),) = slurm_array.read_jobs(study).items()
    assert f'#SBATCH --job-name={name}' in lines
    assert names == [run.name for run in study.runs]
    assert len(list(study.folder.glob('jobs/7_*_submitted.pkl'))) == 3


def test_a_partition_without_gpus(cluster):
    (cluster / 'bin' / 'sinfo').write_text('#!/bin/sh\necho "(null)"\n')
    study = study_of(cluster)
    study.folder.mkdir()
    slurm_array.submit(study, study.runs)
    text = (cluster / 'submitted').read_text()
    assert '--ntasks-per-node=2' in text
    assert '--gpus' not in text
    assert '--gres' not in text


def test_jobs_in_the_queue_are_not_submitted_again(cluster):
    study = study_of(cluster)
    study.folder.mkdir()
    slurm_array.submit(study, study.runs)
    (cluster / 'submitted').unlink()
    (name,) = slurm_array.read_jobs(study)
    queue = cluster / 'queue'
    queue.write_text(f'{name}|0|RUNNING\n{name}|2|PENDING\n')
    words = [state.word for state in states_of(study).values()]
    assert words == ['running', 'waiting', 'queued']
    looks = []

    def show() -> None:
        looks.append(slurm_array.queue(study))
        queue.write_text(f'{name}|0|COMPLETING\n' if len(looks) < 3 else '')

    slurm_array.run_there(study, study.runs, show)
    assert [*map(len, looks)] == [2, 1, 1]
    submitted = list(slurm_array.read_jobs(study).values())
    assert submitted[1:] == [[study.runs[1].name]]
    assert '#SBATCH --array' not in (cluster / 'submitted').read_text()


def test_ctrl_c(cluster, capsys):
    study = study_of(cluster)
    study.folder.mkdir()
    slurm_array.submit(study, study.runs)
    (name,) = slurm_array.read_jobs(study)
    lines = [f'{name}|{i}|PENDING\n' for i in range(3)]
    (cluster / 'queue').write_text(''.join(lines))

    def show() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slurm_array.run_there(study, study.runs, show)
    assert f'scancel --name={name}' in capsys.readouterr().out


def test_slurm_that_does_not_answer(cluster):
    """Its jobs may be there: nothing is submitted, nobody is given up."""
    study = study_of(cluster)
    study.folder.mkdir()
    slurm_array.submit(study, study.runs)
    (cluster / 'submitted').unlink()
    (cluster / 'queue').unlink()
    with pytest.raises(InputError, match='squeue does not answer'):
        slurm_array.run_there(study, study.runs, lambda: None)
    assert not (cluster / 'submitted').exists()
    assert states_of(study)[study.runs[0].name] == State('waiting')
    (cluster / 'bin' / 'squeue').unlink()
    assert slurm_array.queue(study) is None


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({}, 'invalid partition'),
        ({'acount': 'vision'}, r"Unavailable parameter\(s\): \['acount'\]"),
        ({'time': 3}, 'time'),
    ],
)
def test_refused_jobs(cluster, parameters, message):
    (cluster / 'refusal').write_text('sbatch: error: invalid partition')
    study = study_of(cluster, parameters=parameters)
    study.folder.mkdir()
    with pytest.raises(InputError, match=f'cannot be submitted: .*{message}'):
        slurm_array.run_there(study, study.runs, lambda: None)


@pytest.mark.parametrize(
    ('script', 'status', 'error'),
    [
        ('echo one; echo two; exit 3', 3, 'two'),
        ('kill -9 $$', 137, 'ended by SIGKILL'),
        ('kill -15 $$', 143, ''),  # before there is anything to save
        ('exit 143', 143, ''),
    ],
)
def test_process_of_a_job(tmp_path, script, status, error):
    with pytest.raises(SystemExit) as stop:
        slurm_array.train(['sh', '-c', script], str(tmp_path))
    assert stop.value.code == status
    assert state_of(tmp_path).error == error


def test_job_of_what_has_finished(tmp_path):
    (tmp_path / 'facts.json').write_text(json.dumps({'finished': True}))
    slurm_array.train(['touch', str(tmp_path / 'again')], str(tmp_path))
    assert not (tmp_path / 'again').exists()
