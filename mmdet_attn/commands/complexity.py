"""Parameters and GFLOPs of detectors, beside those of the ECA-Net paper."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmdet_attn.cli import require_stack, user_errors
from mmdet_attn.config_files import (
    CONFIGS,
    find_config,
    load_config_file,
)
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
        help='of the image in pixels (default: 800 1280, as in the paper)',
    )
    parser.add_argument(
        '--convention',
        choices=['paper', 'mmengine'],
        default='paper',
        help="paper: MMDetection's counter of 2019, trainable parameters; "
        'mmengine: its own counter, all parameters (default: paper)',
    )
    parser.add_argument('--json', metavar='FILE', help='write the rows here')
    return parser.parse_args()


def number(value):
    return '' if value is None else f'{value:.2f}'


@user_errors
def main():
    args = parse_args()
    names = args.config or [CONFIGS / f'{name}.py' for name in TABLE_5]
    files = [find_config(name) for name in names]
    if args.json and not Path(args.json).parent.is_dir():
        raise InputError(f'--json {args.json}: there is no such folder.')
    require_stack()
    rows: list[dict[str, Any]] = []
    for file in track(files, 'counting', transient=True):
        found = complexity(
            load_config_file(file), tuple(args.shape), args.convention
        )
        paper = TABLE_5.get(file.stem)
        rows.append(
            {
                'config': str(file),
                'params_m': found.params_m,
                'gflops': found.gflops,
                'paper_params_m': paper and paper.params_m,
                'paper_gflops': paper and paper.gflops,
            }
        )
    height, width = args.shape
    table = Table(
        title=f'{height} x {width} pixels, counted as {args.convention}'
    )
    table.add_column('config', no_wrap=True)
    for head in ('#Param M', 'paper', 'GFLOPs', 'paper'):
        table.add_column(head, justify='right')
    for row in rows:
        table.add_row(
            Path(row['config']).stem,
            number(row['params_m']),
            number(row['paper_params_m']),
            number(row['gflops']),
            number(row['paper_gflops']),
        )
    Console().print(table)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + '\n')
