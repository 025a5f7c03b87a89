"""Count parameters and GFLOPs of detectors, beside the ECA-Net paper's."""

import argparse
import json
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmdet_attn.cli import require_stack, user_errors
from mmdet_attn.config_files import CONFIGS
from mmdet_attn.cost.complexity import complexity
from mmdet_attn.errors import InputError
from mmdet_attn.study.results.paper import TABLE_5


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config',
        nargs='*',
        help="configs (default: the 18 of the paper's Table 5)",
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(800, 1280),
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the image in pixels (default: 800 1280, as in the '
        'paper)',
    )
    parser.add_argument(
        '--convention',
        choices=['paper', 'mmengine'],
        default='paper',
        help="paper: MMDetection's counter of 2019, trainable parameters; "
        "mmengine: mmengine's counter, all parameters (default: paper)",
    )
    parser.add_argument(
        '--json', metavar='FILE', help='write the rows to this file'
    )
    return parser.parse_args()


def number(value):
    return '' if value is None else f'{value:.2f}'


@user_errors
def main():
    args = parse_args()
    require_stack()
    files = args.config or [CONFIGS / f'{name}.py' for name in TABLE_5]
    for file in files:
        if not Path(file).is_file():
            raise InputError(f'{file}: no such config.')
    if args.json and not Path(args.json).parent.is_dir():
        raise InputError(f'--json {args.json}: there is no such folder.')
    table = Table(
        title=' x '.join(map(str, args.shape))
        + f' pixels, counted as {args.convention}'
    )
    table.add_column('config', no_wrap=True)
    for head in ('#Param M', 'paper', 'GFLOPs', 'paper'):
        table.add_column(head, justify='right')
    rows = []
    for file in track(files, 'counting', transient=True):
        found = complexity(
            Config.fromfile(file), tuple(args.shape), args.convention
        )
        paper = TABLE_5.get(Path(file).stem)
        row = {
            'params_m': found.params_m,
            'paper_params_m': paper and paper.params_m,
            'gflops': found.gflops,
            'paper_gflops': paper and paper.gflops,
        }
        rows.append({'config': str(file), **row})
        table.add_row(Path(file).stem, *map(number, row.values()))
    Console().print(table)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + '\n')
