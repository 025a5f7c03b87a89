"""Train, evaluate and look at a small detector with ECA, with no download."""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mmdet_attn.cli import user_errors
from mmdet_attn.errors import InputError
from mmdet_attn.study.results.curves import plot_curves

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/demo/faster_rcnn_r50_eca_shapes.py'
PICTURES = 12
SHOWN = re.compile(r'Epoch\(|Average Precision|^\||error|images|shapes')


def parse_args():
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
    return parser.parse_args()


def run(log, *command):
    """Run one command of the toolbox; show the lines that matter."""
    command = [str(part) for part in command]
    print(f'\n$ {" ".join(command)}', flush=True)
    if command[0].endswith('.py'):
        command.insert(0, sys.executable)
    start = time.time()
    lines = []
    with (
        open(log, 'a') as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        for line in process.stdout:
            file.write(line)
            lines.append(line)
            if SHOWN.search(line):
                text = re.sub(r'^.* - INFO - ', '', line.rstrip())
                print(f'  {text[:110]}', flush=True)
    if process.returncode:
        print(''.join(lines[-20:]), file=sys.stderr)
        raise InputError(f'the command above failed; log: {log}')
    return time.time() - start


@user_errors
def main():
    args = parse_args()
    work, data = ROOT / args.work_dir, ROOT / args.data
    work.mkdir(parents=True, exist_ok=True)
    log = work / 'demo.log'
    if not (data / 'annotations/instances_val.json').exists():
        run(log, 'tools/dataset_converters/make_shapes.py', data)
    processes = min(torch.cuda.device_count(), 2) or 2
    options = ['--work-dir', work, '--data-root', data]
    train = run(
        log,
        'tools/dist_train.sh',
        CONFIG,
        processes,
        *options,
        '--resume',
    )
    checkpoint = Path((work / 'last_checkpoint').read_text().strip())
    test = run(log, 'tools/test.py', CONFIG, checkpoint, *options)
    images = sorted((data / 'val').iterdir())[:PICTURES]
    run(
        log,
        'tools/predict.py',
        CONFIG,
        checkpoint,
        *images,
        '--out-dir',
        work / 'pictures',
        '--score-thr',
        0.5,
    )
    curves = plot_curves(work, work / 'curves.png')
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
    print(
        'Next: your own data in COCO format, with the same tools:\n'
        f'  tools/dist_train.sh {CONFIG} 2 --data-root DIR\n'
        "or the paper's detectors on COCO:\n"
        '  tools/dist_train.sh configs/faster_rcnn_r50_eca.py 4 '
        '--data-root data/coco\n'
        f'To start this demo afresh: rm -r {args.work_dir}'
    )
