"""Write a detector as an ONNX file, with its thresholds and NMS inside.

The file takes an image as OpenCV reads it, in the size of the test pipeline,
and gives boxes, scores, labels and masks. test.py and predict.py take it in
the place of the checkpoint.
"""

from copy import deepcopy
from pathlib import Path

from mmdet_attn.cli import check_output, config_parser, load_config
from mmdet_attn.config_checks import check_files
from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import load_strictly
from mmdet_attn.weights.load import (
    read_ahead,
    refuse_not_finite,
    state_dict_of,
)


def make_parser():
    parser = config_parser(__doc__, 'checkpoint')
    parser.add_argument('out', metavar='OUT.onnx', help='the file to write')
    parser.add_argument(
        '--size',
        nargs='+',
        default=['dynamic'],
        metavar=('H', 'W'),
        help='the height and width of the images that the file takes, or '
        '"dynamic" for any (default: dynamic)',
    )
    parser.add_argument(
        '--fuse',
        action='store_true',
        help='make batch norms part of the convolutions in front of them, '
        'and leave out gates whose alpha is 0',
    )
    parser.add_argument(
        '--fp16',
        action='store_true',
        help='compute the network in half precision, for GPUs; boxes, scores '
        'and NMS stay in float32',
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='evaluate checkpoint and file on the test set, an image at a '
        'time, and print differences, AP and speed',
    )
    return parser


def read_size(words):
    """Height and width; None is dynamic."""
    if words == ['dynamic']:
        return None
    if len(words) != 2 or not all(w.isdigit() and int(w) for w in words):
        raise InputError(
            '--size must be two positive numbers, height and width, or '
            f'dynamic, got {" ".join(words)}.'
        )
    return int(words[0]), int(words[1])


def main(args):
    if args.launcher != 'none':
        raise InputError(
            'The export runs in one process: leave --launcher '
            f'{args.launcher} out.'
        )
    check_output('OUT.onnx', args.out, '.onnx')
    size = read_size(args.size)
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    content = read_ahead(args.checkpoint, args.trust_checkpoint)
    refuse_not_finite(args.checkpoint, content)
    cfg = load_config(args, 'val')
    if args.check:
        check_files(cfg, 'test')

    import torch

    from mmdet_attn.cost.complexity import Dense
    from mmdet_attn.deployment.export import classes_of, write_onnx
    from mmdet_attn.deployment.supported import refuse_unknown
    from mmdet_attn.fuse import fuse
    from mmdet_attn.study.evaluation import build_detector

    detector = build_detector(cfg, 'cpu')
    load_strictly(detector, state_dict_of(content), way_out='')
    refuse_unknown(detector)
    classes = classes_of(cfg, content)
    network = deepcopy(detector)
    if args.fuse:
        layers = Dense(network).eval()
        print(fuse(network, lambda: layers(torch.zeros(1, 3, 128, 128))))
    write_onnx(network, cfg, classes, args.out, size, args.fp16)
    print(f'{args.out}: {Path(args.out).stat().st_size / 2**20:.1f} MiB')
    if args.check:
        show(cfg, detector, args.out)


def show(cfg, detector, file):
    """Print how the file differs from the detector."""
    from mmdet_attn.deployment.parity import NEAR, compare

    found = compare(cfg, detector, file)
    print('{images} images, {detections} detections'.format(**found))
    print(f'without a partner within {NEAR} pixel: {found["alone"]}')
    print('largest difference of boxes: {box:.2g} pixel'.format(**found))
    print('largest difference of scores: {score:.2g}'.format(**found))
    for kind in found['AP'][0]:
        one, other = (ap[kind] for ap in found['AP'])
        print(f'{kind} AP: {one:.4f} of the checkpoint, {other:.4f} of ONNX')
    one, other = found['ms']
    print(f'an image: {one:.0f} ms with torch, {other:.0f} ms with ONNX')
