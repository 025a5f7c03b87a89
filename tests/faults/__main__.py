"""Attack the commands as a user would, and count what is lost.

    python tests/faults [--short] [--seed N] [--only NAME ...] [--out FILE]

Prints a table. Exits with 1 unless nothing was lost, hung, executed or ended
in an error that does not name its cause. docs/trust.md defines the columns.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from files import checkpoints, pickles, resumes  # noqa: E402
from inputs import annotations, configs, images  # noqa: E402
from kills import kills, writes  # noqa: E402
from lab import VERDICTS, Lab, Try  # noqa: E402
from machine import collisions, cut_network, full_disk, read_only  # noqa: E402

SCENARIOS = {
    'kill': kills,
    'kill while writing': writes,
    'full disk': full_disk,
    'read-only folder': read_only,
    'port and folder in use': collisions,
    'cut network': cut_network,
    'damaged checkpoint': checkpoints,
    'resume from damage': resumes,
    'hostile file': pickles,
    'broken annotations': annotations,
    'broken images': images,
    'broken configs': configs,
}
# Too long for the short form: they wait for a limit, or start often.
LONG = {'full disk', 'port and folder in use', 'cut network'}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--short', action='store_true', help='3 minutes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='+', choices=SCENARIOS, metavar='NAME')
    parser.add_argument('--out', help='write every try to this JSON file')
    parser.add_argument('--keep', help='a new folder that stays afterwards')
    args = parser.parse_args()
    # A shell lets what it runs in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # So that folders are unmounted and processes end after a Ctrl-C, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    folder = Path(args.keep or tempfile.mkdtemp(prefix='faults_')).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(folder, args.seed, args.short)
    console = Console(width=max(Console().width, 100))
    results: dict[str, list[Try]] = {}
    seconds = {}
    try:
        chosen = [n for n in SCENARIOS if not (args.short and n in LONG)]
        for name in args.only or chosen:
            start, results[name] = time.monotonic(), []
            for found in SCENARIOS[name](lab):
                results[name].append(found)
                if found.verdict != 'survived':
                    detail = ' '.join(found.detail.split())[-200:]
                    print(f'{name}: {found.name}: {found.verdict}: {detail}')
            seconds[name] = time.monotonic() - start
            print(f'{name}: {len(results[name])} in {seconds[name]:.0f} s')
            sys.stdout.flush()
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)

    table = Table('', 'tried', *VERDICTS, 's', title='Faults')
    total: Counter = Counter()
    for name, tries in results.items():
        count = Counter(found.verdict for found in tries)
        total += count
        row = [len(tries) - count['skipped'], *(count[v] for v in VERDICTS)]
        table.add_row(name, *map(str, row), f'{seconds[name]:.0f}')
    row = [total.total() - total['skipped'], *(total[v] for v in VERDICTS)]
    table.add_row('all', *map(str, row), f'{sum(seconds.values()):.0f}')
    console.print(table)
    for name, tries in results.items():
        for reason in {t.detail for t in tries if t.verdict == 'skipped'}:
            print(f'skipped: {name}: {reason}')
    if args.out:
        content = {
            name: {
                'seconds': round(seconds[name]),
                'tries': [vars(found) for found in tries],
            }
            for name, tries in results.items()
        }
        Path(args.out).write_text(json.dumps(content, indent=2) + '\n')
    return int(any(total[verdict] for verdict in VERDICTS[1:-1]))


if __name__ == '__main__':
    sys.exit(main())
