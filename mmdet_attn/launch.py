"""Start a runner under any launcher, on CPU as on GPU."""

import atexit
import os
import sys

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Make `launcher` work on this machine, on CPU as on GPU.

    mmengine binds every process to a GPU; without one, the process group is
    started here, before the runner would, and the model is wrapped without
    device.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise InputError(
            '--launcher pytorch runs under torchrun: '
            'tools/dist_train.sh CONFIG GPUS.'
        )
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
        torch.distributed.init_process_group('gloo')
    elif get_device() == 'cuda':
        gpus = torch.cuda.device_count()
        processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if processes > gpus:
            raise InputError(
                f'{processes} processes on a node with {gpus} GPU(s): start '
                f'at most {gpus}.'
            )


def leave_group() -> None:
    """End the process group together, at the end of a tool.

    On CPU the process ends here, too: when C++ is torn down at exit, gloo's
    threads abort one now and then, and a finished training looks failed.
    """
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()):
        return
    gloo = group.get_backend() == 'gloo'
    if gloo:
        group.barrier()
    group.destroy_process_group()
    if gloo:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def build_runner(cfg: Config):
    """The runner of a config."""
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    with config_errors(cfg):
        return build(cfg)
