"""Make a checkpoint of a training fit to be published.

Optimizer, schedulers and log are taken out; config, class names and versions
are kept; the hash of the file goes into its name. Anybody can load the result
safely (weights_only=True).
"""

import argparse
from pathlib import Path

import torch

from mmdet_attn.cli import user_errors
from mmdet_attn.errors import InputError
from mmdet_attn.weights.files import check_output, write_checkpoint
from mmdet_attn.weights.publish import publish
from mmdet_attn.weights.safe import read_checkpoint


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('input', metavar='INPUT', help='the checkpoint')
    parser.add_argument(
        'output',
        metavar='OUTPUT.pth',
        help='what to call it; OUTPUT-12345678.pth is written',
    )
    parser.add_argument(
        '--force', action='store_true', help='overwrite OUTPUT if it exists'
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='let INPUT run code of its own while loading; only for files '
        'whose author you know',
    )
    return parser.parse_args()


@user_errors
def main():
    args = parse_args()
    if not args.output.endswith('.pth'):
        raise InputError(f'OUTPUT must end in .pth, got {args.output}.')
    check_output(args.output, args.force, args.input)
    checkpoint = read_checkpoint(args.input, args.trust_checkpoint)
    try:
        content = publish(checkpoint)
    except InputError as error:
        raise InputError(f'{args.input} is {error}') from None
    file = write_checkpoint(content, args.output, name_by_hash=True)
    torch.load(file, weights_only=True)  # what is promised
    before, after = (
        Path(f).stat().st_size / 2**20 for f in (args.input, file)
    )
    print(f'{file}: {after:.1f} MiB, of {before:.1f}.')
