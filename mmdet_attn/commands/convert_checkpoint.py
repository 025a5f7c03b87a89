"""Convert an official checkpoint to the names of this package.

The result is written if the model that it is for loads it strictly.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmdet_attn import __version__
from mmdet_attn.cli import add_trust_checkpoint, require_stack
from mmdet_attn.config_files import find_config
from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters import SOURCES
from mmdet_attn.weights.load import read_checkpoint, state_dict_of
from mmdet_attn.weights.save import check_target, sha256, write_checkpoint


def make_parser():
    sources = '\n'.join(
        f'  {source.name:<13} {source.description}'
        for source in SOURCES.values()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f'sources:\n{sources}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'source',
        choices=SOURCES,
        metavar='SOURCE',
        help='whose checkpoint it is: one of those below',
    )
    parser.add_argument('input', metavar='INPUT', help='the official file')
    parser.add_argument('output', metavar='OUTPUT', help='the file to write')
    parser.add_argument(
        '--config',
        help='the config whose model the weights are for (default: the '
        'backbone that their shapes tell)',
    )
    parser.add_argument(
        '--force', action='store_true', help='overwrite OUTPUT if it exists'
    )
    add_trust_checkpoint(parser)
    return parser


def check_paths(args):
    check_target(args.output, args.force, args.input)
    if '://' in args.input:
        raise InputError(f'{args.input}: download it first, then its path.')
    if args.config:
        find_config(args.config)


def show(source, state):
    table = Table(title='What went where')
    for head in ('official', 'here'):
        table.add_column(head, overflow='fold')
    table.add_column('tensors', justify='right')
    for old, new, number in source.moves(state):
        table.add_row(old, new, str(number))
    Console().print(table)


def write(args, converted):
    content = dict(
        state_dict={k: v.detach().clone() for k, v in converted.items()},
        meta=dict(
            source=args.source,
            input=Path(args.input).name,
            sha256=sha256(args.input),
            mmdet_attn=__version__,
        ),
    )
    write_checkpoint(content, args.output)


def main(args):
    check_paths(args)
    require_stack()
    from mmdet_attn.weights.converters.target import (
        check_fit,
        target_cfg,
        untested_differences,
    )

    source = SOURCES[args.source]
    state = state_dict_of(read_checkpoint(args.input, args.trust_checkpoint))
    if not state:
        raise InputError(f'{args.input} holds no weights.')
    converted = source.convert(state)
    show(source, state)
    if args.config:
        cfg = target_cfg(args.config, converted)
    else:
        cfg = source.backbone_cfg(state)
    if 'backbone' not in cfg:
        trained = source.backbone_cfg(state)
        settings = (f'{k}={v!r}' for k, v in trained.items() if k != 'type')
        print(f'For the backbone: {", ".join(settings)}')
        for difference in untested_differences(trained, cfg):
            print(
                f'NOTE: {difference}. The weights fit, but the network '
                'computes something else.'
            )
    check_fit(cfg, converted, source.plain, source.name)
    write(args, converted)
    fits = args.config or cfg.get('host', cfg)['type']
    print(f'{args.output}: {len(converted)} tensors, which fit {fits}.')
