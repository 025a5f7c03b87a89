"""Start a runner under any launcher, on CPU as on GPU."""

import argparse
import atexit
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says how long processes wait for each other."""
    parser.add_argument(
        '--timeout',
        type=minutes,
        metavar='MINUTES',
        help='how long processes wait for each other before they end with '
        'an error (default: 10)',
    )


def minutes(text: str) -> float:
    """A time, as an argument."""
    value = float(text)
    if not 0 < value < 10**6:
        raise argparse.ArgumentTypeError(f'must be positive, got {text}')
    return value


def choose_interface() -> None:
    """Let processes talk by the interface that leads to `MASTER_ADDR`.

    gloo takes that of the host name, which may be known to this machine only.
    """
    from mmdet_attn.training.nodes import interface_to

    name = interface_to(os.environ.get('MASTER_ADDR', '127.0.0.1'))
    if name:
        os.environ.setdefault('GLOO_SOCKET_IFNAME', name)
        if name != 'lo':  # within a machine NCCL chooses well
            os.environ.setdefault('NCCL_SOCKET_IFNAME', name)


def prepare_launch(
    cfg: Config, launcher: str, timeout: float | None = None
) -> None:
    """Make `launcher` work on this machine, on CPU as on GPU.

    mmengine binds every process to a GPU; without one, the process group is
    started here, before the runner would, and the model is wrapped without
    device.

    Args:
        cfg: The config, which is changed.
        launcher: As of `--launcher`.
        timeout: As of `--timeout`; None is the config's, or 10.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise InputError(
            '--launcher pytorch runs under torchrun: '
            'tools/dist_train.sh CONFIG GPUS.'
        )
    if launcher == 'pytorch':
        choose_interface()
    seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 600)
    if timeout:
        seconds = round(timeout * 60)
    cfg.merge_from_dict({'env_cfg.dist_cfg.timeout': seconds})
    # Where batch norm learns, every process has statistics of its own. The
    # evaluation during training would then mix them, and the checkpoint hold
    # those of the first.
    hooks = list(cfg.get('custom_hooks') or [])
    if all(hook['type'] != 'SyncBuffersHook' for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type='SyncBuffersHook')]
    if get_device() == 'cpu':
        if launcher != 'pytorch':
            raise InputError(
                f'--launcher {launcher} needs GPUs; on CPU use '
                'tools/dist_train.sh CONFIG PROCESSES.'
            )
        cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
        wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        wrapper.device_ids = None
        cfg.model_wrapper_cfg = wrapper
        torch.distributed.init_process_group(
            'gloo', timeout=timedelta(seconds=seconds)
        )
    elif get_device() == 'cuda':
        gpus = torch.cuda.device_count()
        processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if processes > gpus:
            raise InputError(
                f'{processes} processes on a node with {gpus} GPU(s): start '
                f'at most {gpus}.'
            )


def is_restarted() -> bool:
    """Whether torchrun or Slurm starts this training again."""
    counts = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')
    return any(os.environ.get(count, '0') != '0' for count in counts)


def resume_at_start(resume: str | None, folder: str | Path) -> str | None:
    """What to resume from, where a launcher may start the training again.

    Args:
        resume: As of `--resume`.
        folder: Where the checkpoints are.

    Raises:
        InputError: After a restart, nobody could tell which checkpoints are
            of this training.
    """
    there = any(Path(folder).glob('*.pth'))
    if is_restarted():
        return 'auto' if there else resume
    may_restart = os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') != '0'
    if 'SLURM_JOB_ID' in os.environ:
        # Slurm requeues what sbatch has started, not what only srun has.
        may_restart |= os.environ.get('ENVIRONMENT') == 'BATCH'
    if may_restart and there and resume != 'auto':
        raise InputError(
            f'{folder} has checkpoints of an earlier training, from which a '
            'restart would go on: give --resume without a name, or another '
            '--work-dir.'
        )
    return resume


def leave_group(status: int = 0, together: bool = True) -> None:
    """End the process group, at the end of a tool.

    On CPU the process ends here, too: when C++ is torn down at exit, gloo's
    threads abort one now and then, and a finished training looks failed.

    Args:
        status: The exit status of a process that ends here.
        together: Whether all processes call this. Otherwise this one does
            not wait for the others, and ends here in any case.
    """
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()):
        return
    gloo = group.get_backend() == 'gloo'
    if together:
        if gloo:
            group.barrier()
        group.destroy_process_group()
    if gloo or not together:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def build_runner(cfg: Config):
    """The runner of a config."""
    from mmengine.registry import RUNNERS

    from mmdet_attn.terminal import ShortRunner

    build = RUNNERS.build if 'runner_type' in cfg else ShortRunner.from_cfg
    with config_errors(cfg):
        return build(cfg)
