"""Evaluate a checkpoint, or an ONNX file that export.py wrote.

Prints the COCO summary and, for each class, AP, AP by size and recall.
WORK_DIR/TIME/TIME_metrics.json has all statistics in full precision if the
metric of the config is mmdet_attn.FastCocoMetric, as in our configs.
"""

from copy import deepcopy

from mmengine.config import ConfigDict

from mmdet_attn.cli import config_parser, load_config
from mmdet_attn.config_checks import check_files
from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.config import coco_metrics
from mmdet_attn.evaluation.report import refuse_no_metric, write_reports
from mmdet_attn.fuse import FuseHook, refuse_exported
from mmdet_attn.launch import build_runner
from mmdet_attn.weights.fit import load_strictly
from mmdet_attn.weights.load import (
    read_ahead,
    refuse_not_finite,
    state_dict_of,
)


def make_parser():
    parser = config_parser(__doc__, 'checkpoint')
    parser.add_argument(
        '--out', metavar='FILE.pkl', help='write all predictions here'
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write pictures of ground truth and predictions to '
        'WORK_DIR/TIME/DIR',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: the flipped image too (boxes only)',
    )
    parser.add_argument(
        '--fuse',
        action='store_true',
        help='make batch norms part of the convolutions in front of them, '
        'for fewer passes over the maps and the same AP',
    )
    parser.add_argument(
        '--non-strict',
        action='store_true',
        help='evaluate although weights are missing, left over or of another '
        'shape; missing ones are random',
    )
    return parser


def add_tta(cfg):
    """Merge the detections of the image and of its mirror image."""
    for evaluator in coco_metrics(cfg, 'test'):
        metric = evaluator.get('metric', 'bbox')
        if 'segm' in metric:
            raise InputError(
                '--tta merges boxes, not masks, and this config evaluates '
                f'{metric}: add --cfg-options '
                'test_evaluator.metric=bbox.'
            )
    tta = cfg.get('tta_model') or ConfigDict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' in cfg:
        dataset.pipeline = cfg.tta_pipeline
    else:
        pack = deepcopy(dataset.pipeline[-1])
        pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
        dataset.pipeline[-1] = dict(
            type='TestTimeAug', transforms=[flips, [pack]]
        )
    cfg.model = ConfigDict(**tta, module=cfg.model)


def main(args):
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise InputError(f'--out must end in .pkl, got {args.out}.')
    if args.fuse:
        refuse_exported(args.checkpoint)
    exported = args.checkpoint.endswith('.onnx')
    if exported and args.launcher != 'none':
        raise InputError(
            'An ONNX file is evaluated in one process: leave --launcher '
            f'{args.launcher} out.'
        )
    content = {}
    if not exported:
        content = read_ahead(args.checkpoint, args.trust_checkpoint)
        refuse_not_finite(args.checkpoint, content)
    cfg = load_config(args, 'val')
    if exported:
        from mmdet_attn.deployment.runtime import use_onnx

        use_onnx(cfg, args.checkpoint)
    cfg.load_from = args.checkpoint
    for evaluator in coco_metrics(cfg, 'test'):
        evaluator['classwise'] = True
    if args.show_dir:
        cfg.default_hooks.visualization.update(
            draw=True, test_out_dir=args.show_dir
        )
    if args.tta:
        add_tta(cfg)

    check_files(cfg, 'test')
    runner = build_runner(cfg)
    if not (args.non_strict or exported):
        detector = runner.model
        while hasattr(detector, 'module'):  # data parallel, --tta
            detector = detector.module
        load_strictly(detector, state_dict_of(content))
    del content  # the runner has it
    if args.fuse:
        runner.register_hook(FuseHook())
    if args.out:
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(
            DumpDetResults(out_file_path=args.out)
        )
    with config_errors(cfg):
        metrics = runner.test()
    refuse_no_metric(runner, metrics)
    write_reports(runner)
