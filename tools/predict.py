"""Detect objects in images: pictures and JSON."""

import argparse
from collections import Counter
from pathlib import Path

from mmdet_attn.cli import require_stack, user_errors
from mmdet_attn.errors import InputError
from mmdet_attn.weights.safe import read_checkpoint, state_dict_of
from mmdet_attn.weights.strict import load_strictly

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


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


def collect(names):
    """The images that files and folders name; each name once."""
    images = []
    for name in map(Path, names):
        if name.is_dir():
            inside = sorted(
                p for p in name.iterdir() if p.suffix.lower() in SUFFIXES
            )
            if not inside:
                raise InputError(f'{name} holds no images {SUFFIXES}.')
            images += inside
        elif name.is_file():
            images.append(name)
        else:
            raise InputError(f'{name}: no such image or folder.')
    # Results are named after the image: two of a name would be one result.
    stem, count = Counter(p.stem for p in images).most_common(1)[0]
    if count > 1:
        raise InputError(
            f'{count} images are named {stem}: their results would overwrite '
            'each other; call again with another --out-dir.'
        )
    return [str(path) for path in images]


@user_errors
def main():
    args = parse_args()
    if not 0 <= args.score_thr <= 1:
        raise InputError(
            f'--score-thr must be between 0 and 1, got {args.score_thr}.'
        )
    images = collect(args.images)
    if not Path(args.config).is_file():
        raise InputError(f'{args.config}: no such config.')
    require_stack()
    checkpoint = read_checkpoint(args.checkpoint, args.trust_checkpoint)
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(args.config, args.checkpoint, args.device)
    if not args.non_strict:
        load_strictly(inferencer.model, state_dict_of(checkpoint))
    inferencer(
        images,
        out_dir=args.out_dir,
        pred_score_thr=args.score_thr,
        no_save_pred=False,
    )
    out = Path(args.out_dir)
    print(f'{len(images)} images: pictures in {out / "vis"}, ', end='')
    print(f'boxes, labels and scores in {out / "preds"}')


if __name__ == '__main__':
    main()
