"""Train a detector."""

from mmdet_attn.cli import config_parser, load_config
from mmdet_attn.errors import InputError
from mmdet_attn.launch import build_runner, resume_at_start
from mmdet_attn.training.alone import lock
from mmdet_attn.training.checkpoints import save_safely, use_resume
from mmdet_attn.training.finite import FiniteHook
from mmdet_attn.training.reproducible import ExactResumeHook, train_exactly
from mmdet_attn.training.slurm import keep_notice
from mmdet_attn.training.stopping import StopHook, restore_signals
from mmdet_attn.weights.plugins import FrozenPluginHook


def make_parser():
    parser = config_parser(__doc__)
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
    return parser


def main(args):
    keep_notice(args.launcher)
    cfg = load_config(args, 'train', 'val')
    lock(cfg.work_dir, args.launcher)

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
    train_exactly(cfg)

    runner = build_runner(cfg)
    runner.register_hook(FrozenPluginHook())
    if not args.allow_nan:
        runner.register_hook(FiniteHook())
    runner.register_hook(StopHook())
    runner.register_hook(ExactResumeHook())
    with restore_signals():
        runner.train()
