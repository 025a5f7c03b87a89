"""What the command line tools share: arguments, config, errors."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config, DictAction

from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.config import BACKENDS, set_eval_backend
from mmdet_attn.launch import leave_group, prepare_launch
from mmdet_attn.weights import load

STACK_HINT = (
    'run make demo in a clone of mmdet_attn, which sets up everything; by '
    "hand: torch first, then pip install --no-build-isolation -e '.[onedl]'"
)


def user_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Show an InputError as one message and exit with 2, no traceback."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except InputError as error:
            if os.environ.get('LOCAL_RANK', '0') == '0':  # once a node
                print(
                    f'{Path(sys.argv[0]).name}: error: {error}',
                    file=sys.stderr,
                )
            sys.exit(2)
        leave_group()

    return wrapped


def require_stack() -> None:
    """Import mmdet with mmcv's ops, or say how to get them."""
    try:
        import mmcv.ops  # noqa: F401
        import mmdet.apis  # noqa: F401
    except (ImportError, AssertionError) as error:
        # mmdet 3.3.0 asserts the versions of mmcv and mmengine.
        raise InputError(
            f'mmdet with mmcv is needed, but: {error} -- {STACK_HINT}'
        ) from error


def check_output(flag: str, file: str | None, *suffixes: str) -> None:
    """Refuse a file to write, before any work: its name or its folder.

    Args:
        flag: The argument that names it.
        file: The file, None if none is wanted.
        suffixes: What its name may end in.
    """
    if file is None:
        return
    if not file.lower().endswith(suffixes):
        ends = ' or '.join(suffixes)
        raise InputError(f'{flag} must end in {ends}, got {file}.')
    if not Path(file).parent.is_dir():
        raise InputError(f'{flag} {file}: there is no such folder.')
    if Path(file).is_dir():
        raise InputError(f'{flag} {file}: this is a folder, not a file.')


def config_parser(
    description: str, *positional: str
) -> argparse.ArgumentParser:
    """A parser with the arguments that mmdet's own tools share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    for name in positional:
        parser.add_argument(name, help=f'{name} file or address')
    parser.add_argument(
        '--work-dir',
        help='where logs and results go (default: work_dirs/CONFIG)',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='a folder in COCO format: train/ val/ '
        "annotations/instances_{train,val}.json, or COCO's own names; "
        'classes are taken from it',
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
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by older launchers',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let checkpoints run code of their own while loading; only for '
        'files whose author you know',
    )
    return parser


def load_config(args: argparse.Namespace, *splits: str) -> Config:
    """The config of a command line, ready for a runner on this machine.

    Args:
        args: What :func:`config_parser` parsed.
        splits: What is needed of ``--data-root``.
    """
    if not Path(args.config).is_file():
        raise InputError(f'{args.config}: no such config.')
    require_stack()
    load.register(args.trust_checkpoint)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.data_root:
        from mmdet_attn.datasets.coco_folder import use_data_root

        use_data_root(cfg, args.data_root, splits)
    if args.eval_backend:
        set_eval_backend(cfg, args.eval_backend)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    prepare_launch(cfg, args.launcher)
    return cfg
