"""Compare trainings: AP, and differences to a baseline with intervals."""

import argparse
import os
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mmdet_attn.cli import check_output
from mmdet_attn.study import plots, report
from mmdet_attn.study.results import compare, read_runs


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Give trainings with attention together with their baseline: '
        'the same detector, backbone and data without attention. Runs are '
        'paired by seed.',
    )
    parser.add_argument(
        'work_dir',
        nargs='+',
        metavar='WORK_DIR',
        help='the --work-dir of a training; its facts decide what it is '
        'compared with, not its name',
    )
    for flag, what in (
        ('--markdown FILE.md', 'write the report to this file'),
        ('--json FILE.json', 'write everything as data'),
        ('--csv FILE.csv', 'write a table with a row for each training'),
        ('--page FILE.html', 'write one page with all tables and plots'),
        ('--plot FILE.png', 'plot loss and AP over epochs'),
    ):
        name, metavar = flag.split()
        parser.add_argument(name, metavar=metavar, help=what)
    return parser


def main(args):
    check_output('--markdown', args.markdown, '.md')
    check_output('--json', args.json, '.json')
    check_output('--csv', args.csv, '.csv')
    check_output('--page', args.page, '.html')
    check_output('--plot', args.plot, '.png')
    runs = read_runs(args.work_dir)
    results = compare(runs)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(Markdown(report.markdown(results)))
    pictures = []
    if args.plot:
        plots.curves(results, runs).savefig(args.plot, dpi=120)
        folder = Path(args.markdown or args.plot).parent
        pictures = [Path(os.path.relpath(args.plot, folder)).as_posix()]
    if args.markdown:
        text = report.markdown(results, pictures)
        Path(args.markdown).write_text(text, encoding='utf-8')
    if args.json:
        report.write_json(results, args.json)
    if args.csv:
        report.write_csv(results, args.csv)
    if args.page:
        text = report.page(results, plots.draw(results, runs), 'Results')
        Path(args.page).write_text(text, encoding='utf-8')
