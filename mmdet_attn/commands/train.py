"""Train a detector."""

from mmengine.runner import find_latest_checkpoint

from mmdet_attn.cli import config_parser, load_config
from mmdet_attn.config_checks import check_files
from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError
from mmdet_attn.launch import build_runner
from mmdet_attn.weights.fit import StartHook
from mmdet_attn.weights.load import read_ahead
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
        'latest one in the work directory',
    )
    parser.add_argument(
        '--non-strict',
        action='store_true',
        help='start although the weights of load_from or --resume do not fit '
        'the network; what they lack keeps its start',
    )
    return parser


def main(args):
    cfg = load_config(args, 'train', 'val')

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
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        latest = cfg.load_from or find_latest_checkpoint(cfg.work_dir)
        if latest:
            read_ahead(latest, args.trust_checkpoint)

    check_files(cfg, 'train', 'val')
    runner = build_runner(cfg)
    runner.register_hook(StartHook(strict=not args.non_strict))
    runner.register_hook(FrozenPluginHook())
    with config_errors(cfg):
        runner.train()
