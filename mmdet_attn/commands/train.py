"""Train a detector."""

from functools import partial

from mmdet_attn.cli import config_parser, load_config
from mmdet_attn.config_checks import check_files
from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError
from mmdet_attn.launch import build_runner, resume_at_start
from mmdet_attn.study.facts import FactsHook
from mmdet_attn.training.alone import lock
from mmdet_attn.training.checkpoints import save_safely, use_resume
from mmdet_attn.training.finite import FiniteHook
from mmdet_attn.training.reproducible import ExactResumeHook, train_exactly
from mmdet_attn.training.schedule import WarmUpHook, scale_epochs
from mmdet_attn.training.slurm import keep_notice
from mmdet_attn.training.stopping import StopHook, restore_signals
from mmdet_attn.training.trackers import (
    TRACKERS,
    add_trackers,
    check_trackers,
)
from mmdet_attn.weights.fit import StartHook
from mmdet_attn.weights.plugins import FrozenPluginHook
from mmdet_attn.weights.start import start_from


def make_parser():
    parser = config_parser(__doc__)
    parser.add_argument(
        '--epochs',
        type=int,
        metavar='N',
        help='train for N epochs; milestones, warm-up and all else that the '
        'config counts in epochs change in proportion',
    )
    parser.add_argument(
        '--load-from',
        metavar='CKPT',
        help='start from the weights of this detector; it may have other '
        'classes, and lack plugins that start as the identity',
    )
    parser.add_argument(
        '--log-to',
        nargs='+',
        choices=list(TRACKERS),
        default=[],
        metavar='TRACKER',
        help=f'log to these, too: {", ".join(TRACKERS)}',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (GPU)'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size, from '
        "the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='carry on from this checkpoint; without a name, from the '
        'newest complete one in the work directory',
    )
    parser.add_argument(
        '--allow-nan',
        action='store_true',
        help='go on when losses, gradients or weights are NaN or infinite',
    )
    parser.add_argument(
        '--non-strict',
        action='store_true',
        help='start although the weights of load_from or --resume do not fit '
        'the network; what they lack keeps its start',
    )
    return parser


def _scale(args, cfg):
    if args.epochs is not None:
        scale_epochs(cfg, args.epochs)


def main(args):
    keep_notice(args.launcher)
    check_trackers(args.log_to)
    cfg = load_config(args, 'train', 'val', change=partial(_scale, args))
    if args.epochs not in (None, cfg.train_cfg.get('max_epochs')):
        raise InputError(
            f'--epochs {args.epochs} contradicts --cfg-options '
            f'train_cfg.max_epochs={cfg.train_cfg.max_epochs}: leave one of '
            'them out.'
        )
    lock(cfg.work_dir, args.launcher)
    add_trackers(cfg, args.log_to)

    if args.amp:
        from mmengine.device import get_device

        if get_device() == 'cpu':
            raise InputError('--amp needs a GPU: leave it out on a CPU.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise InputError(
                '--auto-scale-lr: the config has no '
                'auto_scale_lr.base_batch_size to scale from.'
            )
        cfg.auto_scale_lr.enable = True
    folder = save_safely(cfg)
    resume = resume_at_start(args.resume, folder)
    use_resume(cfg, resume, folder, args.allow_nan)
    if args.load_from and not cfg.get('resume'):
        start_from(cfg, args.load_from, strict=not args.non_strict)
    train_exactly(cfg)

    check_files(cfg, 'train', 'val')
    runner = build_runner(cfg)
    runner.register_hook(StartHook(strict=not args.non_strict))
    runner.register_hook(FrozenPluginHook())
    runner.register_hook(WarmUpHook())
    if not args.allow_nan:
        runner.register_hook(FiniteHook())
    runner.register_hook(StopHook())
    runner.register_hook(ExactResumeHook())
    runner.register_hook(FactsHook())
    with config_errors(cfg), restore_signals():
        runner.train()
