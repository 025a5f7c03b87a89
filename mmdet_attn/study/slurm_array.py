"""Run the trainings of a study as an array of jobs of Slurm."""

import functools
import getpass
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from mmdet_attn.errors import InputError
from mmdet_attn.study.execute import command, note_end
from mmdet_attn.study.plan import Run, Study
from mmdet_attn.study.status import FAILED, LOG, state_of
from mmdet_attn.weights.save import write_bytes

JOBS = 'jobs.json'
# Seconds between two questions to Slurm.
PAUSE = 10
STOPPED = (143, -signal.SIGTERM)
# As tools/sbatch_train.sh does.
REQUEUE = [
    'code=$?',
    '# 143: SIGTERM has stopped the training, which has saved.',
    'if [ $code -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
    'exit $code',
]


def run_there(
    study: Study, runs: Sequence[Run], show: Callable[[], None]
) -> None:
    """Submit trainings, and wait until all of them have left the queue.

    What an earlier call has submitted, and what is still in the queue, is
    waited for and not submitted again.

    Args:
        study: The study.
        runs: The trainings that have not finished.
        show: Is called every second.

    Raises:
        InputError: Slurm does not answer, or refuses the jobs.
        KeyboardInterrupt: After Ctrl-C. The jobs go on.
    """
    queued = queue(study)
    if queued is None:
        raise InputError(
            'launch: squeue does not answer: start a study with kind: slurm '
            'on a machine from which jobs can be submitted.'
        )
    new = [run for run in runs if run.name not in queued]
    if new:
        submit(study, new)
        time.sleep(1)
        _squeue.cache_clear()
    try:
        while queue(study) != {}:
            show()
            time.sleep(1)
    except KeyboardInterrupt:
        names = ','.join(read_jobs(study))
        print(
            '\nThe jobs go on. The same command looks at them again: '
            f'mmdet-attn study {study.folder}\nTo end them: scancel '
            f'--name={names}',
            flush=True,
        )
        raise
    time.sleep(1)  # files of other machines


def submit(study: Study, runs: Sequence[Run]) -> None:
    """Submit trainings as one array."""
    import submitit

    launch = study.launch
    processes = launch['gpus'] * launch.get('nodes', 1)
    more = dict(launch.get('parameters', {}))
    setup, arguments = list(more.pop('setup', [])), ['--kill-on-bad-exit=1']
    if 'cores' in launch:
        # srun does not take it from the job.
        arguments.append(f'--cpus-per-task={launch["cores"]}')
        more['cpus_per_task'] = launch['cores']
        setup.append(f'export OMP_NUM_THREADS={launch["cores"]}')
    if 'partition' in launch:
        more['partition'] = launch['partition']
    if launch['gpus'] and 'gres' not in more and has_gpus(study):
        more['gpus_per_node'] = launch['gpus']
    # A name of its own, by which a later call finds the jobs, even if this
    # one is killed before it knows their numbers.
    name = f'{study.name}-{uuid4().hex[:8]}'
    words = ['--launcher', 'slurm'] if processes > 1 else []
    for run in runs:
        folder = study.work_dir(run)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).unlink(missing_ok=True)
    jobs = read_jobs(study) | {name: [run.name for run in runs]}
    write_bytes(study.folder / JOBS, json.dumps(jobs, indent=1).encode())
    try:
        executor = submitit.SlurmExecutor(study.folder / 'jobs')
        executor.update_parameters(
            job_name=name,
            time=launch['time'],
            nodes=launch.get('nodes', 1),
            ntasks_per_node=max(1, launch['gpus']),
            array_parallelism=launch['at_once'],
            setup=setup,
            srun_args=arguments,
            teardown=REQUEUE,
            stderr_to_stdout=True,
            additional_parameters={
                'requeue': True,
                'signal': 'TERM@120',
                **more.pop('additional_parameters', {}),
            },
            **more,
        )
        executor.map_array(
            train,
            [[*_train(study, run), *words] for run in runs],
            [str(study.work_dir(run).absolute()) for run in runs],
        )
    except (TypeError, ValueError, RuntimeError) as error:
        reason = ' '.join(str(error).split())
        raise InputError(
            f'launch: the jobs cannot be submitted: {reason}.'
        ) from None


def _train(study: Study, run: Run) -> list[str]:
    single = study._replace(launch={**study.launch, 'gpus': 1})
    return command(single, run)


def has_gpus(study: Study) -> bool:
    """Whether nodes of the partition have GPUs."""
    words = ['sinfo', '--noheader', '--format=%G']
    if 'partition' in study.launch:
        words.append(f'--partition={study.launch["partition"]}')
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return 'gpu' in done.stdout


def train(words: list[str], folder: str) -> None:
    """One process of a job: train, and note why it has failed.

    It ends with the exit status of the training.
    """
    work = Path(folder)
    if state_of(work).word == 'finished':
        return
    with open(work / LOG, 'a') as log:
        since = log.tell()
        status = subprocess.call(words, stdout=log, stderr=subprocess.STDOUT)
    if status not in STOPPED:
        note_end(work, status, since)
    sys.exit(status if status >= 0 else 128 - status)


def read_jobs(study: Study) -> dict[str, list[str]]:
    """The names of all arrays, and of the trainings of each."""
    file = study.folder / JOBS
    return json.loads(file.read_text()) if file.exists() else {}


def queue(study: Study) -> dict[str, str] | None:
    """The trainings in the queue: `'running'` or `'queued'`.

    None if Slurm does not answer.
    """
    jobs = read_jobs(study)
    if not jobs:
        return {}
    told = _squeue(','.join(jobs), int(time.time() / PAUSE))
    if told is None:
        return None
    found = {}
    for line in told.splitlines():
        name, index, word = line.split('|')
        # One job alone is no array.
        run = jobs[name][int(index) if index.isdecimal() else 0]
        found[run] = 'queued' if word == 'PENDING' else 'running'
    return found


@functools.lru_cache(maxsize=1)
def _squeue(names: str, _: Any) -> str | None:
    words = ['squeue', '--noheader', '--array', '--format=%j|%K|%T']
    words += [f'--name={names}', f'--user={getpass.getuser()}']
    try:
        return subprocess.run(
            words, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
