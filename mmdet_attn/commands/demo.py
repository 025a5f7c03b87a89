"""Train, evaluate and look at a small detector with ECA; no download."""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mmdet_attn.config_files import CONFIGS, TOOLS
from mmdet_attn.errors import InputError
from mmdet_attn.study import plots
from mmdet_attn.study.results import compare, read_runs

CONFIG = CONFIGS / 'demo' / 'faster_rcnn_r50_eca_shapes.py'
PICTURES = 12
SHOWN = re.compile(r'Epoch\(|Average Precision|^\||error|images|shapes')


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        '--work-dir', default='work_dirs/demo', help='gets all results'
    )
    parser.add_argument(
        '--data', default='data/shapes', help='the set; rendered if missing'
    )
    return parser


def short(part):
    """A path as one would type it in the current folder."""
    part = str(part)
    return part.removeprefix(f'{Path.cwd()}{os.sep}')


def run(log, tool, *arguments):
    """Run one tool; show the lines that matter, and return the seconds."""
    command = [short(part) for part in (TOOLS / tool, *arguments)]
    print(f'\n$ {" ".join(command)}', flush=True)
    if tool.endswith('.py'):
        command.insert(0, sys.executable)
    start = time.time()
    lines = []
    # torchrun lies beside the Python that runs this.
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get('PATH', os.defpath)])
    with (
        open(log, 'a') as file,
        subprocess.Popen(
            command,
            env=os.environ | {'PATH': path},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            lines.append(line)
            if SHOWN.search(line):
                text = re.sub(r'^.* - INFO - ', '', line.rstrip())
                print(f'  {text[:110]}', flush=True)
    if process.returncode:
        print(''.join(lines[-20:]), file=sys.stderr)
        raise InputError(f'the command above failed; log: {log}')
    return time.time() - start


def main(args):
    work, data = Path(args.work_dir), Path(args.data)
    work.mkdir(parents=True, exist_ok=True)
    log = work / 'demo.log'
    if not (data / 'annotations/instances_val.json').exists():
        run(log, 'dataset_converters/make_shapes.py', data)
    processes = min(torch.cuda.device_count(), 2) or 2
    options = ['--work-dir', work, '--data-root', data]
    train = run(log, 'dist_train.sh', CONFIG, processes, *options, '--resume')
    checkpoint = Path((work / 'last_checkpoint').read_text().strip())
    test = run(log, 'test.py', CONFIG, checkpoint, *options)
    images = sorted((data / 'val').iterdir())[:PICTURES]
    pictures = ['--out-dir', work / 'pictures', '--score-thr', 0.5]
    run(log, 'predict.py', CONFIG, checkpoint, *images, *pictures)
    curves, runs = work / 'curves.png', read_runs([work])
    plots.curves(compare(runs), runs).savefig(curves, dpi=120)
    results = sorted(work.glob('*/*_metrics.json'))
    metrics = json.loads(results[-1].read_text())['coco']['bbox']['all']

    table = Table(title='Faster R-CNN, narrow ResNet-50 with ECA, on shapes')
    table.add_column('what', no_wrap=True)
    table.add_column('result', overflow='fold')
    for name in ('AP', 'AP50', 'AP75'):
        table.add_row(f'box {name}', f'{metrics[name]:.3f}')
    table.add_row('training', f'{train:.0f} s, {processes} processes')
    table.add_row('evaluation', f'{test:.0f} s')
    table.add_row('detections', str(work / 'pictures/vis'))
    table.add_row('loss and AP', str(curves))
    table.add_row('checkpoint', str(checkpoint))
    Console().print(table)
    activate = Path(sys.prefix, 'bin', 'activate')
    if activate.is_file() and 'VIRTUAL_ENV' not in os.environ:
        print(f'To use its environment: source {short(activate)}')
    print(
        'Next: your own data in COCO format, with the same tools:\n'
        f'  mmdet-attn train {short(CONFIG)} --data-root DIR\n'
        "or the paper's detectors on COCO:\n"
        '  mmdet-attn train mmdet_attn::faster_rcnn_r50_eca.py '
        '--data-root data/coco\n'
        f'To start this demo afresh: rm -r {args.work_dir}'
    )
