"""The tables that the READMEs and the manual share.

    python docs/tables.py --write             write them into README*.md
    python docs/tables.py                     say whether they are up to date
    python docs/tables.py --count eager       count what modules cost again
    python docs/tables.py --count compiled    the same after torch.compile

A module's row comes from its docstring, its paper's address from the file it
stands in, its parameters and its time from ``facts.json``. Nothing here
imports torch: the manual is built without it. Only ``--count`` needs the
stack, and ``--write`` for a module that ``facts.json`` does not have yet.
"""

import argparse
import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / 'mmdet_attn' / 'plugins'
FACTS = ROOT / 'docs' / 'facts.json'
# Height and width of the image for which the cost of modules is counted.
COUNTED_AT = 800, 1344
# The stages of ResNet-50: blocks, channels of their outputs, and stride.
STAGES = ((3, 256, 4), (4, 512, 8), (6, 1024, 16), (3, 2048, 32))
# What a README says for a word or a formula in English.
WORDS: dict[str, dict[str, str]] = {
    'README.md': {},
    'README_zh-CN.md': json.loads(
        (ROOT / 'docs' / 'words_zh.json').read_text(encoding='utf-8')
    ),
}


@dataclass
class Module:
    """What a page or a row says about one module."""

    name: str
    title: str
    formula: str
    paper: str
    source: str
    config: str
    base: str
    params: int | None
    time: float | None

    @property
    def speed(self) -> str:
        """The class of its time in a ResNet-50, times that of a plain one."""
        if self.time is None:
            return 'not measured'
        if self.time < 1.1:
            return 'fast'
        return 'medium' if self.time <= 1.3 else 'slow'

    @property
    def page(self) -> str:
        return f'modules/{self.name.lower()}.md'


def _exported() -> dict[str, Path]:
    """The names that the plugins package exports, and their files."""
    tree = ast.parse((PLUGINS / '__init__.py').read_text(encoding='utf-8'))
    return {
        alias.name: ROOT / (node.module.replace('.', '/') + '.py')
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _config(name: str) -> Path | None:
    """The config that has a module in Faster R-CNN R50."""
    pattern = f'**/faster_rcnn_r50_{name.lower()}.py'
    return next((ROOT / 'configs').glob(pattern), None)


def _base(config: Path) -> str:
    """The file with the plugins of a config."""
    found = re.search(r'_base_/attention/\w+\.py', config.read_text())
    return f'configs/{found[0]}' if found else str(config.relative_to(ROOT))


def facts() -> dict:
    return json.loads(FACTS.read_text(encoding='utf-8'))


def modules() -> list[Module]:
    """Every exported class that has a config, in the order of the facts."""
    known = facts()['modules']
    found = {}
    for name, file in _exported().items():
        config = _config(name)
        if config is None:
            continue
        tree = ast.parse(file.read_text(encoding='utf-8'))
        docs = {
            node.name: inspect.cleandoc(ast.get_docstring(node) or '')
            for node in tree.body
            if isinstance(node, ast.ClassDef)
        }
        address = re.search(r'https://\S+', ast.get_docstring(tree) or '')
        first = docs[name].partition('\n\n')[0].replace('\n', ' ')
        title, _, formula = first.rstrip('.').partition(': ')
        if not (title and formula and address):
            sys.exit(
                f'{file.relative_to(ROOT)}: {name} needs "Full name: formula."'
                ' as the first line of its docstring, and the file the '
                'address of its paper.'
            )
        fact = known.get(name, {})
        found[name] = Module(
            name,
            title,
            formula,
            address[0].rstrip('.,'),
            str(file.relative_to(ROOT)),
            str(config.relative_to(ROOT)),
            _base(config),
            fact.get('params'),
            fact.get('time'),
        )
    return [found[name] for name in {**known, **found} if name in found]


@dataclass
class Host:
    """A network, and the config that puts attention into it."""

    host: str
    base: str
    network: str
    insertions: int

    @property
    def config(self) -> str:
        return f'configs/_base_/hosts/{self.base}.py'

    @property
    def patterns(self) -> list[str]:
        """Each `at` of the config, behind its `place`."""
        tree = ast.parse((ROOT / self.config).read_text(encoding='utf-8'))
        found = []
        for node in ast.walk(tree):
            named = {k.arg: k.value for k in getattr(node, 'keywords', ())}
            if 'at' in named:
                at = ast.literal_eval(named['at'])
                before = 'before ' if 'place' in named else ''
                at = [at] if isinstance(at, str) else at
                found += [f'{before}`{pattern}`' for pattern in at]
        return found


def hosts() -> list[Host]:
    return [Host(**row) for row in facts()['hosts']]


def paper_tables() -> dict[str, dict[str, Any]]:
    """The tables of the ECA-Net paper, read from the source."""
    file = ROOT / 'mmdet_attn' / 'study' / 'paper.py'
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(file.read_text(encoding='utf-8')).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }


def paper_rows() -> dict[str, Sequence[float | None]]:
    """Table 5, with the rows of each network together."""
    tables = paper_tables()
    rows = tables['TABLE_5'] | tables['FROM_GCNET']
    for name, counted in facts()['counted'].items():
        rows[name] = [counted['params_m'], counted['gflops'], *rows[name][2:]]
    networks = {name: re.match(r'.*_r\d+', name)[0] for name in rows}
    order = list(networks.values())
    return dict(
        sorted(rows.items(), key=lambda r: order.index(networks[r[0]]))
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def escape(formula: str) -> str:
    return re.sub(r'([|*<_])', r'\\\1', formula)


def added(module: Module) -> str:
    return '' if module.params is None else f'{module.params:,}'


def paper(head: list[str], rows: dict, up: str = '', counts: int = 2) -> str:
    """Rows of the paper by config, as many of their numbers as heads.

    Args:
        head: Names of the columns.
        rows: A table of the paper.
        up: The way to the root of the repository.
        counts: How many numbers, from the first on, have two decimals.
    """
    lines = []
    for name, row in rows.items():
        numbers = [
            '' if value is None else f'{value:.{2 if i < counts else 1}f}'
            for i, value in enumerate(row[: len(head) - 1])
        ]
        lines.append([f'[{name}]({up}configs/{name}.py)', *numbers])
    return table(head, lines)


def hosts_table(up: str) -> str:
    """Each network with attention; the tests check every cell.

    Args:
        up: The way to the root of the repository.
    """
    head = ['network', 'as in', 'base config', 'pattern', 'plugins']
    # tests/test_insert_hosts.py asserts these for each row.
    tested = {
        'unexpected keys': '0',
        'start identical': 'yes',
        'trains': 'yes',
        'exports': 'yes',
    }
    rows = [
        [
            f'`{h.host}`',
            h.network.rpartition('/')[2].removesuffix('.py'),
            f'[{h.base}]({up}{h.config})',
            '<br>'.join(h.patterns),
            str(h.insertions),
            *tested.values(),
        ]
        for h in hosts()
    ]
    return table([*head, *tested], rows)


def counts_table(kind: str) -> str:
    """What attention adds to a plain ResNet-50: counts, and eager the time."""
    rows = dict(facts()['counts'][kind])
    plain = rows.pop('plain')
    height, width = COUNTED_AT
    maps = sum(
        4 * blocks * channels * (height // stride) * (width // stride)
        for blocks, channels, stride in STAGES
    )
    head = ['module']
    for mode in ('inference', 'training'):
        head += [f'{mode}: bytes', 'maps', 'kernels']
    first = ['plain']
    for mode in ('forward', 'training'):
        moved = plain[f'{mode}_moved'] / 1e9
        first += [f'{moved:.2f} GB', '', str(plain[f'{mode}_kernels'])]
    lines = [[*first, f'{plain["training_kept"] / 1e9:.2f} GB']]
    for name, row in rows.items():
        cells = [name]
        for mode in ('forward', 'training'):
            if f'{mode}_moved' not in row:
                cells += ['not counted', '', '']
                continue
            moved = row[f'{mode}_moved'] - plain[f'{mode}_moved']
            kernels = row[f'{mode}_kernels'] - plain[f'{mode}_kernels']
            cells += [
                f'{1 + moved / plain[f"{mode}_moved"]:.2f}',
                f'{moved / maps:+.1f}',
                f'{kernels:+}',
            ]
        kept = row.get('training_kept', 0) / plain['training_kept']
        lines.append([*cells, f'{kept:.2f}' if kept else ''])
    if kind == 'eager':
        head.insert(1, 'inference: time')
        times = {module.name: module.time for module in modules()}
        for line in lines:
            time = times.get(line[0], 1.0)
            line.insert(1, f'{time:.2f}' if time else 'not measured')
    return table([*head, 'kept'], lines)


def readme_modules(say: Callable[[str], str]) -> str:
    head = ['module', 'formula', 'added to R50', 'speed', 'config']
    rows = [
        [
            f'[`{m.name}`]({m.source}) ([{say("paper")}]({m.paper}))',
            escape(say(m.formula)),
            added(m),
            say(m.speed),
            f'[{m.name.lower()}]({m.config})',
        ]
        for m in modules()
    ]
    return table(list(map(say, head)), rows)


def readme_paper(say: Callable[[str], str]) -> str:
    head = ['config', '#Param M', 'GFLOPs', 'AP in the paper']
    return paper(list(map(say, head)), paper_rows())


TABLES = {'modules': readme_modules, 'paper': readme_paper}


def filled(file: str) -> str:
    """A README with its tables as they should be."""
    text = (ROOT / file).read_text(encoding='utf-8')

    def say(word: str) -> str:
        return WORDS[file].get(word, word)

    for name, make in TABLES.items():
        start, end = f'<!-- {name} -->', f'<!-- /{name} -->'
        head, rest = text.split(start)
        tail = rest.split(end)[1]
        text = f'{head}{start}\n{make(say)}\n{end}{tail}'
    return text


@cache
def _parameters(base: str = '') -> int:
    """The parameters of a ResNet-50 with the plugins of a file.

    The scalars of the identity start are not counted.
    """
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config

    import mmdet_attn  # noqa: F401

    host = dict(type='mmdet.ResNet', depth=50)
    attention = Config.fromfile(ROOT / base).attention if base else {}
    backbone = host | attention
    if attention.get('type') == 'mmdet_attn.insert':
        backbone = dict(attention, host=host)
    for key in ('_delete_', 'init_cfg'):
        backbone.pop(key, None)
    with torch.device('meta'):
        network = MODELS.build(backbone)
    return sum(
        value.numel()
        for name, value in network.named_parameters()
        if value.dim() or name.rpartition('.')[2] != 'alpha'
    )


def added_parameters(module: Module) -> int:
    """What the config of a module adds to a ResNet-50."""
    return _parameters(module.base) - _parameters()


def add_facts(content: dict) -> None:
    """Count the parameters of modules that the facts lack."""
    for module in modules():
        if module.params is None:
            content['modules'][module.name] = {
                'params': added_parameters(module)
            }


def add_counts(content: dict, kind: str) -> None:
    """Count every module in a ResNet-50, one image of `COUNTED_AT`.

    It takes two minutes, after `torch.compile` half an hour.
    """
    from mmdet_attn.cost.cases import network_cases
    from mmdet_attn.cost.timing import Setup

    names = [module.name for module in modules()]
    rows: dict[str, dict[str, int]] = {}
    for mode in ('forward', 'training'):
        setup = Setup(backward=mode == 'training', compile=kind == 'compiled')
        cases = network_cases(names, 'backbones', COUNTED_AT, 1, setup)
        for case in cases:
            works = {'plain': case.other, case.name: case.work}
            for name, work in works.items():
                rows.setdefault(name, {}).update(
                    {f'{mode}_{k}': v for k, v in work.counts.items()}
                )
    content.setdefault('counts', {})[kind] = rows


def write_facts(content: dict) -> None:
    # One module a line: a new one is a line of a diff.
    text = json.dumps(content, indent=2)
    text = re.sub(
        r'\{\s+("(?:params|params_m|host|forward_moved)": [^{}]+?)\s+\}',
        lambda found: '{' + re.sub(r'\s*\n\s*', ' ', found[1]) + '}',
        text,
    )
    FACTS.write_text(text + '\n', encoding='utf-8')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--write', action='store_true', help='write the tables'
    )
    parser.add_argument(
        '--count', choices=['eager', 'compiled'], help='count all modules'
    )
    args = parser.parse_args()
    write, content = args.write, facts()
    if write:
        add_facts(content)
    if args.count:
        add_counts(content, args.count)
    if write or args.count:
        write_facts(content)
    for file in WORDS:
        text = filled(file)
        if write:
            (ROOT / file).write_text(text, encoding='utf-8')
        elif text != (ROOT / file).read_text(encoding='utf-8'):
            sys.exit(
                f'{file} is not up to date: python docs/tables.py --write'
            )


if __name__ == '__main__':
    main()
