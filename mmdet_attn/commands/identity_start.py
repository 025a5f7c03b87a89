"""Insert attention into a trained detector, as in the papers and as identity.

This trains the demo's small detector without attention on the shapes set,
inserts each module in either way and trains on. It shows AP right after the
insertion and after every epoch. Called again, it goes on where it was
interrupted. It takes up to 20 minutes on 2 cores.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from inspect import signature
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmdet_attn
from mmdet_attn.cli import require_stack
from mmdet_attn.config_files import CONFIGS, TOOLS
from mmdet_attn.errors import InputError
from mmdet_attn.study.identity_start import (
    make_jobs,
    plot_starts,
    run_job,
)

VAL = 75  # images: every training evaluates several times
CONFIG = CONFIGS / 'demo' / 'faster_rcnn_r50_eca_shapes.py'


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        '--modules',
        nargs='+',
        default=['ECA', 'SE', 'CBAM'],
        help='names of gates',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        default=[0, 1, 2],
        help='seeds of each training',
    )
    parser.add_argument(
        '--epochs', type=int, default=3, help='epochs after the insertion'
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/identity_start',
        help='folder for the set, all trainings, results.json, results.png',
    )
    parser.add_argument(
        '--workers', type=int, default=2, help='trainings at the same time'
    )
    return parser


def check(args):
    for name in args.modules:
        module = vars(mmdet_attn).get(name)
        if not isinstance(module, type) or not issubclass(
            module, mmdet_attn.Attention
        ):
            raise InputError(f'--modules: mmdet_attn has no module {name}.')
        _, *others = signature(module).parameters.values()
        if not any(other.name == 'identity_init' for other in others):
            raise InputError(
                f'--modules: {name} has no identity_init to compare with.'
            )
        for other in others:
            if other.default is other.empty:
                raise InputError(
                    f'--modules: {name} needs the argument {other.name}, '
                    'which cannot be given here.'
                )
    for option, value in (('epochs', args.epochs), ('workers', args.workers)):
        if value < 1:
            raise InputError(f'--{option} must be at least 1, got {value}.')


def train_plain(work, data, workers):
    """Train without attention, unless it is done; return the checkpoint."""
    folder = work / 'plain'
    last = folder / 'last_checkpoint'
    if not (folder / 'epoch_8.pth').is_file():
        print('training the plain detector', flush=True)
        command = [
            *(TOOLS / 'dist_train.sh', CONFIG, workers),
            *('--work-dir', folder, '--data-root', data, '--resume'),
            *('--cfg-options', 'model.backbone.plugins=None'),
        ]
        # torchrun lies beside the Python that runs this.
        here = str(Path(sys.executable).parent)
        path = os.pathsep.join([here, os.environ.get('PATH', '')])
        with open(work / 'plain.log', 'w') as log:
            done = subprocess.run(
                [str(part) for part in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'PATH': path},
                check=False,
            )
        if done.returncode:
            raise InputError(f'the training failed: see {log.name}.')
    return last.read_text().strip()


def main(args):
    check(args)
    require_stack()
    from mmdet_attn.datasets.shapes import make_shapes

    work = Path(args.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    data = work / 'data'
    if not (data / 'annotations/instances_val.json').is_file():
        make_shapes(data, val=VAL)
    trained = train_plain(work, data, args.workers)
    rest = str(CONFIG), str(data), trained, str(work), args.epochs
    jobs = make_jobs(args.modules, args.seeds)
    with ProcessPoolExecutor(
        args.workers, multiprocessing.get_context('spawn')
    ) as pool:
        futures = {pool.submit(run_job, job, *rest): job for job in jobs}
        for future in track(
            as_completed(futures), 'training on', total=len(jobs)
        ):
            future.result()
    rows = [future.result() for future in futures]
    before = rows[0]['ap'][0]

    table = Table(title=f'box AP; {100 * before:.1f} before the insertion')
    table.add_column('module')
    table.add_column('start')
    for epoch in range(args.epochs + 1):
        head = f'epoch {epoch}' if epoch else 'inserted'
        table.add_column(head, justify='right')
    for kind in dict.fromkeys((row['module'], row['start']) for row in rows):
        curves = [r['ap'] for r in rows if (r['module'], r['start']) == kind]
        cells = [
            f'{100 * mean(v):.1f} ({100 * min(v):.1f}-{100 * max(v):.1f})'
            for v in zip(*curves, strict=True)
        ]
        table.add_row(kind[0] or 'no attention', kind[1], *cells)
    Console(width=max(Console().width, 110)).print(table)
    print(f'mean (lowest-highest) of {len(args.seeds)} seeds; {work}')
    (work / 'results.json').write_text(json.dumps(rows, indent=2) + '\n')
    plot_starts(before, rows, work / 'results.png')
