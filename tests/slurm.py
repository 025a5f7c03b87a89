"""A Slurm of two nodes on this machine, for as long as a test needs it."""

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from conftest import ROOT

CONF = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
KillWait=200
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=127.0.0.[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 \
Port=[{ports[1]}-{ports[2]}] CPUs=4
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=grace Nodes=ALL PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=2
"""
PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'srun', 'sbatch', 'setpriv')
PATH = os.pathsep.join([os.environ['PATH'], '/usr/sbin', '/sbin'])


class NoSlurmError(Exception):
    """Why there is none on this machine."""


class Slurm:
    """Commands for a Slurm that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = os.environ | {
            'SLURM_CONF': str(folder / 'slurm.conf'),
            'PATH': PATH,
        }

    def __call__(self, *command) -> str:
        """Run a command in the clone; its output is returned."""
        return subprocess.run(
            [str(part) for part in command],
            env=self.env,
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
        ).stdout.strip()

    def state(self, job: str) -> str:
        """Such as PENDING, RUNNING, COMPLETED, FAILED."""
        told = self('scontrol', 'show', 'job', job)
        return re.search(r'JobState=(\w+)', told)[1]


def free_ports(count: int) -> list[int]:
    """Ports in a row that are free."""
    for first in range(20000 + os.getpid() % 10000, 32000, count):
        with contextlib.ExitStack() as stack:
            ports = list(range(first, first + count))
            try:
                for port in ports:
                    probe = stack.enter_context(socket.socket())
                    probe.bind(('127.0.0.1', port))
            except OSError:
                continue
            return ports
    raise NoSlurmError('it finds no free ports')


@contextlib.contextmanager
def start_slurm(folder: Path):
    """Start munged, slurmctld and two slurmd; end them and their jobs.

    Raises:
        NoSlurmError: They are not installed, or do not start.
    """
    missing = [p for p in PROGRAMS if not shutil.which(p, path=PATH)]
    if missing:
        raise NoSlurmError(
            f'there is no {", ".join(missing)}: apt-get install -y '
            'slurm-wlm munge util-linux'
        )
    slurm = Slurm(folder)
    (folder / 'state').mkdir()
    (folder / 'slurm.conf').write_text(
        CONF.format(ports=free_ports(3), user=getpass.getuser(), folder=folder)
    )
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munge = {'key-file': key, 'socket': folder / 'munge.socket'}
    munge |= {f'{name}-file': folder / name for name in ('pid', 'log', 'seed')}
    programs = [
        ['munged', '--foreground', '--force']
        + [f'--{name}={file}' for name, file in munge.items()],
        ['slurmctld', '-D', '-c'],
        ['slurmd', '-D', '-N', '127.0.0.1'],
        ['slurmd', '-D', '-N', '127.0.0.2'],
    ]
    running = []
    try:
        for program in programs:
            name = f'{len(running)}-{program[0]}'
            with (folder / f'{name}.out').open('w') as output:
                running.append(
                    subprocess.Popen(
                        # They end with pytest, whatever happens to it.
                        ['setpriv', '--pdeathsig', 'TERM', *program],
                        env=slurm.env,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        await_nodes(slurm)
        yield slurm
        slurm('scancel', '--user', getpass.getuser())
        wait_until(lambda: not slurm('squeue', '--noheader'), 60)
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def await_nodes(slurm: Slurm) -> None:
    """Wait until both nodes take jobs."""

    def ready() -> bool:
        command = ['sinfo', '--noheader', '--format=%T %D', '-p', 'low']
        told = subprocess.run(
            command, env=slurm.env, capture_output=True, text=True, check=False
        )
        return told.stdout.strip() == 'idle 2'

    try:
        wait_until(ready, 30)
    except TimeoutError:
        said = [
            f'{file.name}: {line}'
            for file in sorted(slurm.folder.glob('*.out'))
            for line in file.read_text().splitlines()
            if re.search('fatal|error', line, re.IGNORECASE)
        ]
        raise NoSlurmError('it does not start:\n' + '\n'.join(said)) from None


def wait_until(true, seconds: float = 240) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f'nothing after {seconds} s')
        time.sleep(0.1)
