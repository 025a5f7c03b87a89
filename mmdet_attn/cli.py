"""Arguments, checks and configs that the commands share."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

from mmdet_attn.config_checks import (
    check_names,
    check_options,
    check_parts,
    check_unchanged,
)
from mmdet_attn.config_errors import config_errors
from mmdet_attn.config_files import find_config, load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.config import BACKENDS, set_eval_backend
from mmdet_attn.launch import add_timeout, prepare_launch
from mmdet_attn.training.slurm import use_step
from mmdet_attn.weights import load

CONFIG_HELP = (
    'config file, or one of an installed package, such as '
    'mmdet_attn::faster_rcnn_r50_eca.py'
)


def require_stack() -> None:
    """Import mmdet with mmcv's ops, or say how to get them."""
    try:
        import mmcv.ops  # noqa: F401
        import mmdet.apis  # noqa: F401
    except (ImportError, AssertionError) as error:
        # mmdet 3.3.0 asserts the versions of mmcv and mmengine.
        raise InputError(
            f'mmdet with mmcv is needed, but: {error} -- run make demo in a '
            'clone of mmdet_attn, which sets up everything; by hand: torch '
            "first, then pip install --no-build-isolation -e '.[onedl]'"
        ) from error


def check_device(device: str) -> None:
    """Refuse a `--device` that is not there."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f'--device {device} cannot be used here ({reason}); leave it out '
            'for the default.'
        ) from None


def check_output(flag: str, file: str | None, *suffixes: str) -> None:
    """Check the name and the folder of a file to write, before any work.

    Args:
        flag: The argument that names the file.
        file: The file, None if none is wanted.
        suffixes: The endings that its name may have; any if left out.

    Raises:
        InputError: The file cannot be written.
    """
    if file is None:
        return
    if suffixes and not file.lower().endswith(suffixes):
        ends = ' or '.join(suffixes)
        raise InputError(f'{flag} must end in {ends}, got {file}.')
    if not Path(file).parent.is_dir():
        raise InputError(f'{flag} {file}: there is no such folder.')
    if Path(file).is_dir():
        raise InputError(f'{flag} {file}: this is a folder, not a file.')


def add_trust_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets a checkpoint run code."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let checkpoints run code of their own while loading; only for '
        'files whose author you know',
    )


def config_parser(
    description: str, *positional: str
) -> argparse.ArgumentParser:
    """A parser with the arguments that mmdet's own tools share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help=CONFIG_HELP)
    for name in positional:
        parser.add_argument(name, help=f'{name} file or address')
    parser.add_argument(
        '--work-dir',
        help='where logs and results go (default: work_dirs/ and the name '
        'of the config)',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='a folder in COCO format: train/ val/ '
        "annotations/instances_{train,val}.json, or COCO's own names; "
        'classes are taken from it',
    )
    parser.add_argument(
        '--image-scale',
        nargs=2,
        type=int,
        metavar=('W', 'H'),
        help='bring images to this size, in training and evaluation: the '
        'scale of Resize; other sizes in the pipelines change in proportion',
    )
    parser.add_argument(
        '--skip-bad-images',
        action='store_true',
        help='leave out images that are missing, cannot be decoded or are of '
        'another size than recorded',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config, such as '
        'train_dataloader.batch_size=4 or '
        'model.backbone.plugins.0.cfg.kernel_size=5; a list is key="[a,b]"',
    )
    parser.add_argument(
        '--eval-backend',
        choices=BACKENDS,
        help="what computes COCO's AP: faster-coco-eval, the default of our "
        'configs, or pycocotools, the slow reference; also turns the '
        'CocoMetric of other configs into mmdet_attn.FastCocoMetric',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who starts the processes (default: none)',
    )
    add_timeout(parser)
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by older launchers',
    )
    parser.add_argument(
        '--new-option',
        action='store_true',
        help='let --cfg-options set keys that the config does not have and '
        'that nothing here is known to read',
    )
    add_trust_checkpoint(parser)
    return parser


def load_config(
    args: argparse.Namespace,
    *splits: str,
    change: Callable[[Config], None] | None = None,
) -> Config:
    """The config of a command line, ready for a runner on this machine.

    Args:
        args: What `config_parser` parsed.
        splits: The parts of `--data-root` that are needed.
        change: Changes the config before `--cfg-options` does.
    """
    config = find_config(args.config)
    launcher = args.launcher
    if launcher == 'slurm':
        use_step()
        launcher = 'pytorch'
    require_stack()
    load.register(args.trust_checkpoint)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config_file(config)
    check_names(cfg)
    options = args.cfg_options or {}
    if not args.new_option:
        check_options(cfg, options)
    with config_errors(cfg):
        if change:
            change(cfg)
        if args.image_scale:
            from mmdet_attn.datasets.image_scale import set_image_scale

            set_image_scale(cfg, args.image_scale)
        cfg.merge_from_dict(options)
    parts = ('train', 'val') if 'train' in splits else ('test',)
    check_parts(cfg, parts)
    if args.data_root:
        from mmdet_attn.datasets.coco_folder import use_data_root

        with config_errors(cfg):
            use_data_root(cfg, args.data_root, splits)
        check_unchanged(cfg, options)
    if args.eval_backend:
        set_eval_backend(cfg, args.eval_backend)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs', config.stem))
    from mmdet_attn.datasets.contents import check_contents

    check_contents(cfg, parts, args.skip_bad_images)
    prepare_launch(cfg, launcher, args.timeout)
    return cfg
