"""Show what the attention of a detector does in images.

Writes PNGs, and one HTML page that holds them all.
"""

from pathlib import Path

from mmdet_attn.errors import InputError
from mmdet_attn.inference import (
    check_readable,
    check_score_thr,
    collect_images,
    image_parser,
    load_inferencer,
)


def make_parser():
    parser = image_parser(__doc__)
    parser.add_argument(
        '--out',
        metavar='DIR',
        default='outputs/attention',
        help='folder for index.html and the PNGs',
    )
    parser.add_argument(
        '--ann',
        metavar='FILE',
        help='a COCO annotation file of the images, to show the factors of '
        'channels by class and not by image',
    )
    parser.add_argument(
        '--shown',
        type=int,
        metavar='N',
        default=8,
        help='how many images have their detections and heat maps drawn; the '
        'numbers are those of all images',
    )
    return parser


def main(args):
    check_score_thr(args.score_thr)
    if args.shown < 1:
        raise InputError(f'--shown must be 1 or more, got {args.shown}.')
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise InputError(f'--out {args.out} is a file: give a folder.')
    images = collect_images(args.images, '--out')
    classes = None
    if args.ann:
        from mmdet_attn.look.image_groups import images_by_class

        classes = images_by_class(args.ann, images)
    inferencer = load_inferencer(
        args.config,
        args.checkpoint,
        args.device,
        args.trust_checkpoint,
        strict=not args.non_strict,
    )
    check_readable(images)
    from mmdet_attn.look.page import attention_maps

    page = attention_maps(
        inferencer,
        images,
        args.out,
        classes=classes,
        score_thr=args.score_thr,
        shown=args.shown,
        facts=[('config', args.config), ('checkpoint', args.checkpoint)],
    )
    print(f'{len(images)} images: open {page}; PNGs beside it')
