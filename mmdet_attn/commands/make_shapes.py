"""Draw a small detection set of coloured shapes in COCO format."""

import argparse

from mmdet_attn.datasets.shapes import make_shapes


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('root', help='new folder for the set')
    parser.add_argument(
        '--train', type=int, default=600, help='training images'
    )
    parser.add_argument(
        '--val', type=int, default=150, help='validation images'
    )
    parser.add_argument(
        '--size', type=int, default=192, help='height and width in pixels'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='same seed, same bytes'
    )
    return parser


def main(args):
    make_shapes(**vars(args))
    print(f'{args.root}: {args.train} training, {args.val} validation images')
