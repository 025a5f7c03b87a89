"""Count and measure what attention costs, as ratios within the same run.

A module is held against the straightforward form of its formula, a network
against the network without attention. With --fuse each network, and the one
without attention, is held against itself before fusing. Counted are the bytes
that operations read and write, the kernels, and the bytes kept for the
backward pass. These figures are exact and the same on every machine. Of a
detector its layers are counted, on 1000 boxes. For the time both run in turn,
A B A B. The table has the medians, the quartiles of the ratio and the peak
memory. On a Linux CPU the tool tells malloc to keep freed memory: page faults
would hide everything else.
"""

import argparse
import json
import platform
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import torch
from rich.console import Console

from mmdet_attn.cli import check_device, check_output, require_stack
from mmdet_attn.cost.cases import module_cases, network_cases
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.cost.table import group_by, make_table, plot_cost, ratios
from mmdet_attn.cost.timing import Setup, keep_memory
from mmdet_attn.errors import InputError

NETWORKS = ('backbones', 'detectors')


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        '--what',
        choices=['modules', *NETWORKS],
        default='modules',
        help='modules at the four stages of a ResNet-50; or the backbone of '
        'Faster R-CNN R50, or all of it, with each module and without '
        '(default: modules)',
    )
    add('--modules', nargs='+', metavar='NAME', help='default: all')
    add(
        '--sizes',
        nargs='+',
        default=['800x1344'],
        metavar='HxW',
        help='sizes of the image in pixels (default: 800x1344)',
    )
    add('--batch', type=int, help='images (default: modules 2, networks 1)')
    add(
        '--rounds',
        type=int,
        default=7,
        help='at least 3; 0 counts and measures nothing (default: 7)',
    )
    add('--device', default='cpu', help='such as cpu or cuda (default: cpu)')
    add(
        '--backward',
        action='store_true',
        help='also measure forward and backward; batch norms are in eval mode',
    )
    add('--compile', action='store_true', help='run both in torch.compile')
    add('--channels-last', action='store_true', help='use this memory format')
    add('--amp', choices=['float16', 'bfloat16'], help='autocast to this type')
    add(
        '--fuse',
        action='store_true',
        help='networks only: measure each with its batch norms fused into '
        'convolutions, against itself',
    )
    add('--json', metavar='FILE', help='write the figures to this file')
    add('--plot', metavar='FILE.png', help='plot the ratios of every module')
    return parser


def check(args) -> list[tuple[int, int]]:
    """Refuse what cannot be run, and return the sizes of the images."""
    check_output('--json', args.json)
    check_output('--plot', args.plot, '.png')
    if args.rounds < 3 and args.rounds != 0:
        raise InputError(
            f'--rounds must be at least 3, or 0, got {args.rounds}.'
        )
    if args.batch is not None and args.batch < 1:
        raise InputError(f'--batch must be at least 1, got {args.batch}.')
    if args.fuse and (args.what == 'modules' or args.backward):
        raise InputError(
            '--fuse is for the inference of networks, got --what '
            f'{args.what}{" --backward" * args.backward}: give --what '
            f'{" or ".join(NETWORKS)}, and leave --backward out.'
        )
    check_device(args.device)
    for name in args.modules or ():
        if name not in FORMULAS:
            raise InputError(
                f'--modules: there is no {name}; there are '
                f'{", ".join(FORMULAS)}.'
            )
    sizes = []
    for text in args.sizes:
        found = re.fullmatch(r'(\d+)x(\d+)', text)
        height, width = map(int, found.groups()) if found else (0, 0)
        if min(height, width) < 32:
            raise InputError(
                f'--sizes must be HxW of at least 32x32, got {text}.'
            )
        sizes.append((height, width))
    return sizes


def main(args):
    sizes = check(args)
    if args.what in NETWORKS:
        require_stack()
    device = torch.device(args.device)
    if device.type == 'cpu':
        keep_memory()
        machine = f'{torch.get_num_threads()} CPU threads'
    else:
        machine = torch.cuda.get_device_name(device)
    rows: list[dict] = []
    try:
        for row in measure(args, sizes):
            rows.append(row)
    except KeyboardInterrupt:
        print('interrupted: this is what was measured')
    if not rows:
        raise InputError('nothing was measured.')
    other = 'formula' if args.what == 'modules' else 'plain'
    if args.fuse:
        other = 'not fused'
    words = ['fused ' * args.fuse + f'{args.what} against {other}']
    words += [machine] * bool(args.rounds)
    words += ['compiled'] * args.compile
    words += ['channels_last'] * args.channels_last
    title = ', '.join([*words, *filter(None, [args.amp])])
    console = Console()
    console.width = max(console.width, 100)
    for mode, members in group_by(rows, 'mode').items():
        console.print(make_table(members, f'{title}, {mode}', other))
    if args.plot:
        plot_cost(rows, title, other, Path(args.plot))
    if args.json:
        content = {
            'date': date.today().isoformat(),
            'machine': machine,
            'torch': torch.__version__,
            'python': platform.python_version(),
            'arguments': vars(args),
            'rows': rows,
        }
        text = json.dumps(content, indent=2)
        Path(args.json).write_text(text + '\n', encoding='utf-8')


def measure(args, sizes) -> Iterator[dict]:
    """Measure one case after the other, and print its ratios at once."""
    for backward in (False, True) if args.backward else (False,):
        setup = Setup(
            args.device,
            backward,
            args.compile,
            args.channels_last,
            args.amp and getattr(torch, args.amp),
        )
        names = args.modules or FORMULAS
        for size in sizes:
            if args.what == 'modules':
                cases = module_cases(names, size, args.batch or 2, setup)
            else:
                batch = args.batch or 1
                cases = network_cases(
                    names, args.what, size, batch, setup, args.fuse
                )
            for case in cases:
                if isinstance(case, str):
                    print(case, flush=True)
                    continue
                row = case.measure(setup, args.rounds)
                figures = (f'{k} {v:.3f}' for k, v in ratios(row).items())
                line = '{name} {size} {mode}: '.format(**row)
                print(line + ', '.join(figures), flush=True)
                yield row
