"""Compare trainings, finished or not, with the ECA-Net paper."""

import argparse
import json
import os
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mmdet_attn.cli import check_output
from mmdet_attn.study.results.compare import compare
from mmdet_attn.study.results.curves import plot_comparison
from mmdet_attn.study.results.data import as_json
from mmdet_attn.study.results.markdown import markdown


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Give a training with attention together with its baseline '
        '(the same detector and backbone without attention): only the gain '
        "can be compared fairly with the paper's.",
    )
    parser.add_argument(
        'work_dir',
        nargs='+',
        metavar='WORK_DIR',
        help='the --work-dir of a training; its config decides which row of '
        'the paper it is, not its name',
    )
    parser.add_argument(
        '--markdown', metavar='FILE.md', help='write the report to this file'
    )
    parser.add_argument(
        '--json', metavar='FILE.json', help='write everything as data'
    )
    parser.add_argument(
        '--plot',
        metavar='FILE.png',
        help='plot loss, learning rate and AP over epochs',
    )
    return parser


def main(args):
    check_output('--markdown', args.markdown, '.md')
    check_output('--json', args.json, '.json')
    check_output('--plot', args.plot, '.png')
    compared = compare(args.work_dir)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(Markdown(markdown(compared)))
    picture = ''
    if args.plot:
        plot_comparison(compared, args.plot)
        folder = Path(args.markdown or args.plot).parent
        picture = Path(os.path.relpath(args.plot, folder)).as_posix()
    if args.markdown:
        Path(args.markdown).write_text(markdown(compared, picture))
    if args.json:
        text = json.dumps(as_json(compared), indent=2, allow_nan=False)
        Path(args.json).write_text(text + '\n')
