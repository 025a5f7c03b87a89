"""What Slurm says of its processes, in the variables of torchrun."""

import atexit
import os
import re
import signal

import torch

from mmdet_attn.errors import InputError

# Of signals that came before the training could save.
early: list[int] = []


def keep_notice(launcher: str) -> None:
    """Let only a training that has saved end by SIGTERM under srun.

    srun tells the highest exit code of its processes. After an error of one
    it sends SIGTERM to the others, and their 143 would hide the error.

    Args:
        launcher: As of `--launcher`.
    """
    if launcher == 'slurm':
        signal.signal(signal.SIGTERM, lambda number, _: early.append(number))
        atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)


def use_step() -> None:
    """Let torch find the other processes of a step of Slurm.

    `MASTER_ADDR` and `MASTER_PORT` stay as they are where they are set.

    Raises:
        InputError: srun did not start this process.
    """
    given = os.environ
    if 'SLURM_STEP_ID' not in given:
        raise InputError(
            '--launcher slurm runs under srun: tools/slurm_train.sh '
            'PARTITION JOB_NAME CONFIG WORK_DIR.'
        )
    given['RANK'] = given['SLURM_PROCID']
    # Slurm may show each process its own GPU only, as number 0.
    gpus = torch.cuda.device_count()
    local = int(given['SLURM_LOCALID'])
    given['LOCAL_RANK'] = str(local % gpus if gpus else local)
    given['WORLD_SIZE'] = given['SLURM_STEP_NUM_TASKS']
    address = first_node(given['SLURM_STEP_NODELIST'])
    if given['SLURM_STEP_NUM_NODES'] == '1':
        address = '127.0.0.1'
    given.setdefault('MASTER_ADDR', address)
    # Other jobs on this node, and other steps of this job, have their own.
    number = 10 * int(given['SLURM_JOB_ID']) + int(given['SLURM_STEP_ID'])
    given.setdefault('MASTER_PORT', str(10000 + number % 20000))


def first_node(nodes: str) -> str:
    """The first name in a list of Slurm's, such as `gpu[03-05,9],cpu1`."""
    return re.sub(r'\[([^],-]+)[^]]*\]', r'\1', nodes).split(',')[0]
