"""Time and memory of attention, as ratios to something else in the same run.

Modules alone are measured against the straightforward form of their formula
(or mmcv's or timm's version), networks against the plain network, COCO
evaluation against pycocotools. Both run in turn, A B A B; the medians, the
quartiles of the ratio and the peak memory are reported. On a Linux CPU the
script tells malloc to keep freed memory: page faults would drown the rest.
"""

import argparse
import json
import platform
import re
from datetime import date
from pathlib import Path

import torch
from rich.console import Console

from mmdet_attn.cli import require_stack, user_errors
from mmdet_attn.config_files import CONFIGS
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.cost.modules import (
    AGAINST,
    Setup,
    check_against,
    module_cases,
)
from mmdet_attn.cost.report import make_table, measure, plot_cost
from mmdet_attn.cost.timing import keep_memory
from mmdet_attn.errors import InputError

NETWORKS = ('backbones', 'detectors')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        '--what',
        choices=['modules', *NETWORKS, 'evaluation'],
        default='modules',
        help='modules at the four stages of a ResNet-50; the backbone or all '
        'of Faster R-CNN R50 with each module and without; COCO evaluation '
        '(default: modules)',
    )
    add('--modules', nargs='+', metavar='NAME', help='default: all')
    add(
        '--sizes',
        nargs='+',
        default=['800x1344'],
        metavar='HxW',
        help='of the image in pixels (default: 800x1344)',
    )
    add('--batch', type=int, help='images (default: modules 2, networks 1)')
    add('--rounds', type=int, default=7, help='default: 7, at least 3')
    add('--device', default='cpu', help='such as cpu or cuda (default: cpu)')
    add(
        '--backward',
        action='store_true',
        help='also forward and backward; batch norm of modules in eval mode',
    )
    add('--compile', action='store_true', help='both under torch.compile')
    add('--channels-last', action='store_true', help='memory format')
    add('--amp', choices=['float16', 'bfloat16'], help='autocast to this type')
    add(
        '--against',
        choices=list(AGAINST),
        default='formula',
        help='what modules are measured against (default: formula)',
    )
    add(
        '--pair',
        nargs=2,
        metavar=('GT.json', 'DT.json'),
        help='for --what evaluation: COCO annotations and results, boxes or '
        'masks or both, replicated to 2,000 images',
    )
    add('--json', metavar='FILE', help='write the figures here')
    add('--plot', metavar='FILE.png', help='draw cost against parameters here')
    return parser.parse_args()


def check(args):
    """The sizes of a command line that can be run."""
    for file in (args.json, args.plot):
        if file and not Path(file).parent.is_dir():
            raise InputError(f'{file}: there is no such folder.')
    if args.plot and not args.plot.endswith('.png'):
        raise InputError(f'--plot must end in .png, got {args.plot}.')
    if args.rounds < 3:
        raise InputError(f'--rounds must be at least 3, got {args.rounds}.')
    if args.batch is not None and args.batch < 1:
        raise InputError(f'--batch must be at least 1, got {args.batch}.')
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f'--device {args.device}: {line}') from error
    known = AGAINST[args.against] if args.what == 'modules' else FORMULAS
    for name in args.modules or ():
        if name not in known:
            raise InputError(
                f'--modules: there is no {name}; there are {", ".join(known)}.'
            )
    sizes = []
    for text in args.sizes:
        found = re.fullmatch(r'(\d+)x(\d+)', text)
        size = tuple(map(int, found.groups())) if found else (0, 0)
        if min(size) < 32:
            raise InputError(
                f'--sizes must be HxW of at least 32x32, got {text}.'
            )
        sizes.append(size)
    return sizes


def evaluation(args):
    """Boxes or masks with both engines, as lines on the terminal."""
    if not args.pair:
        raise InputError('--what evaluation needs --pair GT.json DT.json.')
    for file in args.pair:
        if not Path(file).is_file():
            raise InputError(f'{file}: no such file.')
    from mmdet_attn.cost.evaluation import compare

    detections = json.loads(Path(args.pair[1]).read_text())
    keys = {'bbox': 'bbox', 'segm': 'segmentation'}
    kinds = [
        k for k, key in keys.items() if detections and key in detections[0]
    ]
    if not kinds:
        raise InputError(f'{args.pair[1]} has neither boxes nor masks.')
    rows = []
    for kind in kinds:
        speed = compare(*args.pair, kind, runs=args.rounds)
        rows.append(
            {
                'iou_type': kind,
                'images': speed.images,
                'seconds': speed.medians,
                'spread': speed.spreads,
                'ratio': speed.ratio,
                'difference': speed.difference,
            }
        )
        print(
            f'{kind}, {speed.images} images: faster-coco-eval '
            f'{speed.medians["faster"]:.2f} s, pycocotools '
            f'{speed.medians["pycocotools"]:.2f} s, {speed.ratio:.1f} times '
            f'faster; largest difference {speed.difference:.1e}'
        )
    return rows


def cases(args, size, setup):
    names = args.modules
    if args.what == 'modules':
        names = names or AGAINST[args.against]
        return module_cases(names, size, args.batch or 2, setup, args.against)
    from mmdet_attn.cost.networks import network_cases

    names = names or FORMULAS
    return network_cases(
        names, CONFIGS, args.what, size, args.batch or 1, setup
    )


@user_errors
def main():
    args = parse_args()
    sizes = check(args)
    check_against(args.against)
    device = torch.device(args.device)
    if device.type == 'cpu':
        keep_memory()
        machine = f'{torch.get_num_threads()} CPU threads'
    else:
        machine = torch.cuda.get_device_name(device)
    if args.what == 'evaluation':
        require_stack()
        rows = evaluation(args)
    else:
        if args.what in NETWORKS:
            require_stack()
        rows = networks(args, sizes, machine)
    if args.json:
        about = {
            'date': date.today().isoformat(),
            'machine': machine,
            'torch': torch.__version__,
            'python': platform.python_version(),
            'arguments': vars(args),
        }
        text = json.dumps({**about, 'rows': rows}, indent=2)
        Path(args.json).write_text(text + '\n', encoding='utf-8')


def measured(args, sizes):
    """One row after the other, each shown as soon as it is there."""
    for backward in (False, True) if args.backward else (False,):
        setup = Setup(
            args.device,
            backward,
            args.compile,
            args.channels_last,
            args.amp and getattr(torch, args.amp),
        )
        for size in sizes:
            for case in cases(args, size, setup):
                if isinstance(case, str):
                    print(case, flush=True)
                    continue
                row = measure(case, setup, args.rounds)
                print(
                    f'{row["name"]} {row["size"]} {row["mode"]}: '
                    f'{row["ratio"]:.3f}',
                    flush=True,
                )
                yield row


def networks(args, sizes, machine):
    """Modules or networks, as a table on the terminal."""
    rows = []
    other = args.against if args.what == 'modules' else 'plain'
    try:
        for row in measured(args, sizes):
            rows.append(row)
    except KeyboardInterrupt:
        print('interrupted: this is what was measured')
    options = [
        word
        for word, on in (
            ('compiled', args.compile),
            ('channels_last', args.channels_last),
            (args.amp, args.amp),
        )
        if on
    ]
    title = ', '.join([f'{args.what} against {other}', machine, *options])
    if not rows:
        raise InputError('nothing was measured.')
    Console(width=max(Console().width, 130)).print(
        make_table(rows, title, other)
    )
    if args.plot:
        plot_cost(rows, title, other, Path(args.plot))
    return rows
