"""Detect objects in images: pictures and JSON."""

import argparse
from pathlib import Path

from mmdet_attn.cli import user_errors
from mmdet_attn.errors import InputError
from mmdet_attn.inference import collect_images, load_inferencer


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument(
        'images', nargs='+', help='image files, or folders of images'
    )
    parser.add_argument(
        '--out-dir', default='outputs', help='gets vis/ and preds/'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least score to draw'
    )
    parser.add_argument(
        '--device', help='such as cpu or cuda:0; the best there is if left out'
    )
    parser.add_argument(
        '--non-strict',
        action='store_true',
        help='go on although the checkpoint does not fit the config',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let the checkpoint run code of its own while loading',
    )
    return parser.parse_args()


@user_errors
def main():
    args = parse_args()
    if not 0 <= args.score_thr <= 1:
        raise InputError(
            f'--score-thr must be between 0 and 1, got {args.score_thr}.'
        )
    images = collect_images(args.images, '--out-dir')
    inferencer = load_inferencer(
        args.config,
        args.checkpoint,
        args.device,
        args.trust_checkpoint,
        strict=not args.non_strict,
    )
    inferencer(
        images,
        out_dir=args.out_dir,
        pred_score_thr=args.score_thr,
        no_save_pred=False,
    )
    out = Path(args.out_dir)
    print(f'{len(images)} images: pictures in {out / "vis"}, ', end='')
    print(f'boxes, labels and scores in {out / "preds"}')
