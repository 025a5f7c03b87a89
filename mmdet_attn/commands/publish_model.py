"""Make a published checkpoint from a checkpoint of a training.

Optimizer, schedulers and log are left out. Config, class names and versions
are kept. The name of the file gets its hash. Anybody can load the result
safely (weights_only=True).
"""

import argparse
from pathlib import Path

import torch

from mmdet_attn.cli import add_trust_checkpoint
from mmdet_attn.errors import InputError
from mmdet_attn.weights.load import read_checkpoint
from mmdet_attn.weights.save import (
    check_target,
    for_publication,
    write_checkpoint,
)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('input', metavar='INPUT', help='the checkpoint')
    parser.add_argument(
        'output',
        metavar='OUTPUT.pth',
        help='its name; OUTPUT-12345678.pth is written',
    )
    parser.add_argument(
        '--force', action='store_true', help='overwrite OUTPUT if it exists'
    )
    add_trust_checkpoint(parser)
    return parser


def main(args):
    if not args.output.endswith('.pth'):
        raise InputError(f'OUTPUT must end in .pth, got {args.output}.')
    check_target(args.output, args.force, args.input)
    checkpoint = read_checkpoint(args.input, args.trust_checkpoint)
    try:
        content = for_publication(checkpoint)
    except InputError as error:
        raise InputError(f'{args.input} is {error}') from None
    file = write_checkpoint(content, args.output, name_by_hash=True)
    torch.load(file, weights_only=True)  # the promise of the help text
    before, after = (
        Path(f).stat().st_size / 2**20 for f in (args.input, file)
    )
    print(f'{file}: {after:.1f} MiB, of {before:.1f}.')
