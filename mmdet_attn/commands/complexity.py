"""Count parameters and GFLOPs of detectors, beside the ECA-Net paper's."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from mmdet_attn.cli import check_output, require_stack
from mmdet_attn.config_errors import config_errors
from mmdet_attn.config_files import CONFIGS, find_config, load_config_file
from mmdet_attn.cost.complexity import complexity
from mmdet_attn.study.paper import TABLE_5


def make_parser():
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
    return parser


def number(value):
    return '' if value is None else f'{value:.2f}'


def main(args):
    names = args.config or [CONFIGS / f'{name}.py' for name in TABLE_5]
    files = [find_config(name) for name in names]
    check_output('--json', args.json)
    table = Table(
        title=' x '.join(map(str, args.shape))
        + f' pixels, counted as {args.convention}'
    )
    table.add_column('config', no_wrap=True)
    for head in ('#Param M', 'paper', 'GFLOPs', 'paper'):
        table.add_column(head, justify='right')
    require_stack()
    rows: list[dict[str, Any]] = []
    for file in track(files, 'counting', transient=True):
        cfg = load_config_file(file)
        with config_errors(cfg):
            found = complexity(cfg, tuple(args.shape), args.convention)
        paper = TABLE_5.get(file.stem)
        row = {
            'params_m': found.params_m,
            'paper_params_m': paper and paper[0],
            'gflops': found.gflops,
            'paper_gflops': paper and paper[1],
        }
        rows.append({'config': str(file), **row})
        table.add_row(escape(file.stem), *map(number, row.values()))
    Console().print(table)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + '\n')
