"""Show what the attention of a detector does in images.

Writes PNGs, and one HTML page that holds them all.
"""

from pathlib import Path

from mmdet_attn.errors import InputError
from mmdet_attn.inference import (
    check_readable,
    check_score_thr,
    classes_of,
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
    parser.add_argument(
        '--compare',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a second detector of the same classes, such as one trained '
        'without attention, to show where both look',
    )
    parser.add_argument(
        '--detection',
        type=int,
        metavar='N',
        default=1,
        help='the detection for Grad-CAM: 1 for that with the highest score '
        'in each image, 2 for the next',
    )
    return parser


def main(args):
    check_score_thr(args.score_thr)
    if args.shown < 1:
        raise InputError(f'--shown must be 1 or more, got {args.shown}.')
    if args.detection < 1:
        raise InputError(
            f'--detection must be 1 or more, got {args.detection}.'
        )
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise InputError(f'--out {args.out} is a file: give a folder.')
    images = collect_images(args.images, '--out')
    classes = None
    if args.ann:
        from mmdet_attn.look.image_groups import images_by_class

        classes = images_by_class(args.ann, images)
    pairs = [(args.config, args.checkpoint)]
    facts = [*zip(('config', 'checkpoint'), pairs[0], strict=True)]
    if args.compare:
        pairs.append(args.compare)
        facts.append(('compared with', ' '.join(args.compare)))
    inferencer, *more = [
        load_inferencer(
            *pair,
            args.device,
            args.trust_checkpoint,
            strict=not args.non_strict,
        )
        for pair in pairs
    ]
    for other in more:
        if classes_of(other) != classes_of(inferencer):
            raise InputError(
                f'--compare {args.compare[0]} knows other classes than '
                f'{args.config}: give a detector of the same classes.'
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
        compare=more[0] if more else None,
        detection=args.detection,
        facts=facts,
    )
    print(f'{len(images)} images: open {page}; PNGs beside it')
