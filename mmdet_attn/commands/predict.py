"""Detect objects in images and write pictures and JSON."""

import sys
from pathlib import Path

import numpy as np
from rich.progress import track

from mmdet_attn.datasets.image_check import why_unreadable
from mmdet_attn.datasets.pre_labels import (
    LAYOUTS,
    PreLabels,
    check_labels_out,
)
from mmdet_attn.fuse import fuse, refuse_exported
from mmdet_attn.inference import (
    check_score_thr,
    classes_of,
    collect_images,
    detect,
    image_parser,
    load_inferencer,
)


def make_parser():
    parser = image_parser(__doc__)
    parser.add_argument(
        '--out-dir', default='outputs', help='gets vis/ and preds/'
    )
    parser.add_argument(
        '--labels-out',
        metavar='DIR',
        help='write the detections from --score-thr on as labels, to be '
        'corrected and trained with, into this new folder',
    )
    parser.add_argument(
        '--labels-format',
        choices=LAYOUTS,
        default='coco',
        help='of --labels-out: instances.json, or classes.txt and labels/',
    )
    parser.add_argument(
        '--fuse',
        action='store_true',
        help='make batch norms part of the convolutions in front of them, '
        'for fewer passes over the maps and the same detections',
    )
    return parser


def main(args):
    check_score_thr(args.score_thr)
    check_labels_out(args.labels_out)
    if args.fuse:
        refuse_exported(args.checkpoint)
    images = collect_images(args.images, '--out-dir')
    inferencer = load_inferencer(
        args.config,
        args.checkpoint,
        args.device,
        args.trust_checkpoint,
        strict=not args.non_strict,
    )
    inferencer.show_progress = False  # it has a bar for each call
    if args.fuse:
        grey = np.full((256, 256, 3), 128, np.uint8)
        fused = fuse(inferencer.model, lambda: inferencer(grey))
        print(fused, file=sys.stderr)
    labels = args.labels_out and PreLabels(
        classes_of(inferencer), args.score_thr
    )
    bad = []
    # One by one: a call keeps the pictures of all its images in memory.
    for image in track(images, 'predicting'):
        why = why_unreadable(Path(image))
        try:
            if not why:
                found = detect(inferencer, image, args.out_dir, args.score_thr)
                if labels:
                    labels.add(found)
        except OSError:
            raise  # not of this image: the folder or the disk
        except Exception as error:  # an image of an odd shape, for instance
            words = ' '.join(str(error).split())
            why = f'{type(error).__name__}: {words}'
        if why:
            bad.append(f'{image}: {why}')
    out = Path(args.out_dir)
    done = len(images) - len(bad)
    print(f'{done} images: pictures in {out / "vis"}, ', end='')
    print(f'boxes, labels and scores in {out / "preds"}')
    if labels:
        labels.write(Path(args.labels_out), args.labels_format)
        print(f'{len(labels.annotations)} labels in {args.labels_out}')
    if bad:
        print(
            f'{len(bad)} of {len(images)} images failed:',
            *bad,
            sep='\n',
            file=sys.stderr,
        )
        sys.exit(1)
