"""Find the places for attention in the networks of a config.

Shows the modules of each part with the size of their output, places with the
patterns that `mmdet_attn.insert` takes, what attention there adds, and a
config. With `--at` the place is yours. FLOPs are counted as by `complexity`,
at the size of the zeros on which the part runs.
"""

import argparse
import contextlib
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import DictAction
from mmengine.registry import MODELS
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

import mmdet_attn
from mmdet_attn.cli import CONFIG_HELP, require_stack
from mmdet_attn.config_checks import check_options, near, walk
from mmdet_attn.config_errors import config_errors
from mmdet_attn.config_files import load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.module_names import find
from mmdet_attn.places import Flow, Place, added, suggest, tensors
from mmdet_attn.tracing import HEIGHT, Trace, trace
from mmdet_attn.weights.plugins import plugins_of

PARTS = ('backbone', 'neck')
PLUGIN = 'plugin'


def make_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        '--at',
        nargs='+',
        metavar='PATTERN',
        help="names of modules, such as 'layer*.*.bn3', in quotes",
    )
    parser.add_argument(
        '--place',
        choices=['after', 'before'],
        default='after',
        help='behind the modules of --at, or in front of them (default: '
        'after)',
    )
    parser.add_argument(
        '--plugin',
        nargs='+',
        default=['mmdet_attn.ECA'],
        metavar=('TYPE', 'KEY=VALUE'),
        help='what to insert, perhaps with arguments (default: '
        'mmdet_attn.ECA)',
    )
    parser.add_argument(
        '--part',
        nargs='+',
        metavar='NAME',
        help='parts of the model, such as bbox_head or roi_head.bbox_head '
        '(default: backbone and neck)',
    )
    parser.add_argument(
        '--depth',
        type=int,
        default=2,
        help='levels of modules to show; what matches is always shown '
        '(default: 2)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config',
    )
    return parser


class Part(NamedTuple):
    """A part of a model, and how it ran.

    Attributes:
        name: Its name in the config.
        network: The part.
        alone: Its run on zeros, as `insert` makes it.
        run: Its run on what the part before returned, where it takes that.
        flow: What it did in this run.
        height: The height of the image, or of the first of the zeros.
    """

    name: str
    network: nn.Module
    alone: Trace
    run: Trace
    flow: Flow
    height: int


def main(args):
    if args.place == 'before' and not args.at:
        raise InputError('--place before needs --at.')
    if args.depth < 1:
        raise InputError(f'--depth must be 1 or more, got {args.depth}.')
    require_stack()
    from mmengine.registry import init_default_scope

    cfg = load_config_file(args.config)
    check_options(cfg, args.cfg_options or {})
    with config_errors(cfg):
        cfg.merge_from_dict(args.cfg_options or {})
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        model = MODELS.build(cfg.model)
    plugin = _plugin(*args.plugin)
    parts = [*_run(model, _names(model, cfg.model, args.part))]
    if args.at:
        places = _given(parts, args.at, args.place)
    else:
        places = [suggest(p.network, p.alone, p.flow) for p in parts]
    console, snippet = Console(), []
    for part, found in zip(parts, places, strict=True):
        marks = {}
        if args.at:
            mark = f'{plugin["type"].rpartition(".")[2]} {args.place}'
            marks = {name: mark for place in found for name in place.names}
        _show(console, part, marks, args.depth)
        for place in found:
            spec = {'cfg': plugin, 'at': place.at, 'place': args.place}
            text = f'at={place.at!r}\n  {place.what} ({len(place.names)})'
            if part.run.failure is None:
                more = added(part.network, [spec], part.run.inputs)
                text += (
                    f': +{more[0]:,} parameters, +{more[1] / 1e6:.3f} MFLOPs '
                    f'(+{more[2]:.2f} %)'
                )
            text = textwrap.indent(text, '  ')
            console.print(f'\n{text}', soft_wrap=True, markup=False)
            snippet += [_snippet(part.name, spec)]
        console.print()
    if snippet:
        shown = snippet if args.at else snippet[:1]
        base = Path(args.config).name
        base = args.config if '::' in args.config else base
        console.print(
            f'A config, to be saved beside {args.config}:\n', soft_wrap=True
        )
        lines = [f"_base_ = ['{base}']", 'model = dict(', *shown, ')']
        console.print('\n'.join(lines), soft_wrap=True, markup=False)


def _plugin(name: str, *options: str) -> dict[str, Any]:
    """The `cfg` of the plugin, with an identity start where it has one."""
    kind = MODELS.get(name)
    if kind is None:
        known = [name for name in dir(mmdet_attn) if name[0].isupper()]
        hint = near(name.rpartition('.')[2], known, 'mmdet_attn.')
        raise InputError(f'--plugin {name}: there is no such module{hint}')
    cfg: dict[str, Any] = {'type': name}
    arguments = inspect.signature(kind).parameters
    if 'identity_init' in arguments:
        cfg['identity_init'] = True
    for option in options:
        key, sign, value = option.partition('=')
        if not sign or key not in arguments:
            raise InputError(
                f'--plugin {name} {option}: its arguments are KEY=VALUE, '
                f'with a KEY of {", ".join(arguments)}.'
            )
        cfg[key] = DictAction._parse_int_float_bool(value)
    lacking = [
        key
        for key, argument in arguments.items()
        if argument.default is argument.empty
        and argument.kind is argument.POSITIONAL_OR_KEYWORD
        and key not in ('in_channels', *cfg)
    ]
    if lacking:
        raise InputError(
            f'--plugin {name} also needs {", ".join(lacking)}: give them as '
            'KEY=VALUE behind it.'
        )
    return cfg


def _names(model: Any, cfg: Mapping, wanted: list[str] | None) -> list[str]:
    """The parts to show.

    Raises:
        InputError: The model has no such part.
    """
    known = []
    for path, node in walk(cfg):
        if isinstance(node, Mapping) and 'type' in node:
            with contextlib.suppress(AttributeError):
                part: Any = model.get_submodule(path)
                if next(part.parameters(), None) is not None:
                    known.append(path)
    wanted = wanted or [name for name in PARTS if name in known]
    for name in wanted:
        if name not in known:
            raise InputError(
                f'--part {name}: {type(model).__name__} has no such part '
                f'with parameters, but {", ".join(known)}.'
            )
    return wanted


def _run(model: Any, wanted: list[str]) -> Iterator[Part]:
    """Run the wanted parts on the maps of those before them."""
    before = [name for name in PARTS if getattr(model, name, None)]
    order = [*dict.fromkeys([*before, *wanted])]
    last = max(map(order.index, wanted))
    given: Any = None
    for name in order[: last + 1]:
        network = model.get_submodule(name)
        alone = trace(network)
        run = alone if given is None else trace(network, given)
        height = HEIGHT
        if run.failure is not None and given is not None:
            run, height = alone, next(tensors(alone.inputs)).shape[2]
        flow = Flow()
        if run.failure is None:
            flow.watch(network, run.inputs)
            given = flow.output if name in PARTS else given
        if name in wanted:
            yield Part(name, network, alone, run, flow, height)


def _given(
    parts: list[Part], patterns: list[str], where: str
) -> list[list[Place]]:
    """The places that patterns find in each part.

    Raises:
        InputError: A pattern finds nothing in any part.
    """
    places = []
    errors: dict[str, list[str]] = {pattern: [] for pattern in patterns}
    for part in parts:
        matching = []
        for pattern in patterns:
            try:
                find(part.network, pattern, where)
                matching.append(pattern)
            except InputError as error:
                errors[pattern].append(str(error))
        if matching:
            at: Any = matching if len(matching) > 1 else matching[0]
            names = find(part.network, at, where)
            places.append([Place(at, names, f'{where} modules')])
        else:
            places.append([])
    for said in errors.values():
        if len(said) == len(parts):
            raise InputError(' '.join(said))
    return places


def _show(
    console: Console, part: Part, marks: dict[str, str], depth: int
) -> None:
    """Print the tree of a part."""
    network, run = part.network, part.run
    sizes = ', '.join(_size(tuple(x.shape[1:])) for x in tensors(run.inputs))
    console.print(
        f'{part.name}: {type(network).__name__} on {sizes}',
        style='bold',
    )
    table = Table(box=None, pad_edge=False)
    table.add_column('module', no_wrap=True)
    table.add_column('class', overflow='ellipsis')
    for head in ('C x H x W', 'stride', 'parameters'):
        table.add_column(head, justify='right', no_wrap=True)
    table.add_column('', no_wrap=True)
    marks = dict.fromkeys(plugins_of(network), PLUGIN) | marks
    for row in _rows(_node(part, marks, '', network), depth):
        style = 'bold green' if row[-1] else None
        table.add_row(*map(escape, row), style=style)
    console.print(table)
    if part.alone.failure is not None:
        console.print(
            f'\n{type(network).__name__} does not run on zeros alone '
            f'({part.alone.failure}). insert needs in_channels there.',
            soft_wrap=True,
            markup=False,
        )


class Node(NamedTuple):
    """A module in the tree. Neighbours that are equal are shown once."""

    cells: tuple[str, ...]
    children: tuple[tuple[str, 'Node'], ...]
    marked: bool


def _node(part: Part, marks: dict[str, str], name: str, module: Any) -> Node:
    start = f'{name}.' if name else ''
    mark = marks.get(name, '')
    children = tuple(
        (key, _node(part, marks, start + key, child))
        for key, child in module.named_children()
        if mark != PLUGIN
    )
    size = part.run.seen[name].after if name in part.run.seen else ''
    stride = ''
    if isinstance(size, tuple):
        stride = f'{part.height / size[1]:g}'
        size = _size(size)
    params = sum(p.numel() for p in module.parameters())
    size = size.removeprefix('the shape ').removeprefix('a ')
    cells = (type(module).__name__, size, stride, f'{params:,}', mark)
    marked = bool(mark) or any(child.marked for _, child in children)
    return Node(cells, children, marked)


def _rows(node: Node, depth: int, indent: str = '') -> Iterator[tuple]:
    shown = [
        (key, child)
        for key, child in node.children
        # A loss has no parameters, and does not run.
        if (depth > 0 and child.cells[1:] != ('', '', '0', '')) or child.marked
    ]
    for (_, child), pairs in itertools.groupby(
        shown, lambda pair: (pair[0].isdigit() or pair[0], pair[1])
    ):
        keys = [key for key, _ in pairs]
        key = keys[0] if len(keys) == 1 else f'{keys[0]} .. {keys[-1]}'
        yield indent + key, *child.cells
        yield from _rows(child, depth - 1, indent + '  ')


def _size(shape: tuple[int, ...]) -> str:
    return ' x '.join(map(str, shape))


def _snippet(part: str, spec: Mapping) -> str:
    """The part of a config that inserts a plugin."""
    cfg = ', '.join(f'{key}={value!r}' for key, value in spec['cfg'].items())
    place = ", place='before'" if spec['place'] == 'before' else ''
    lines = [
        '_delete_=True,',
        "type='mmdet_attn.insert',",
        f'host=_base_.model.{part},',
        'plugins=[',
        '    dict(',
        f'        cfg=dict({cfg}),',
        f'        at={spec["at"]!r}{place},',
        '    ),',
        '],',
    ]
    for name in reversed(part.split('.')):
        lines = [f'{name}=dict(', *(f'    {line}' for line in lines), '),']
    return '\n'.join(f'    {line}' for line in lines)
