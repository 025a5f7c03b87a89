"""Detect objects in images and write pictures and JSON."""

from pathlib import Path

from mmdet_attn.inference import (
    check_score_thr,
    collect_images,
    image_parser,
    load_inferencer,
)


def make_parser():
    parser = image_parser(__doc__)
    parser.add_argument(
        '--out-dir', default='outputs', help='gets vis/ and preds/'
    )
    return parser


def main(args):
    check_score_thr(args.score_thr)
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
