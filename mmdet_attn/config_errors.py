"""Say in one line what is wrong where a config is read or built."""

import errno
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import BaseLoop

from mmdet_attn.config_checks import near, walk
from mmdet_attn.errors import InputError, missing_extra, printable
from mmdet_attn.insertion import wraps

VARIABLE = 'MMDET_ATTN_TRACEBACK'
POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')
# What mmengine and mmcv say of an unknown `type`, and Python of an argument.
UNKNOWN = re.compile(r'is not in the|Cannot find None|None is not a callable')
ARGUMENT = re.compile(
    r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'"
)


@contextmanager
def config_errors(cfg: Config | Path) -> Iterator[None]:
    """Show what fails while a config is read or built as an InputError.

    What fails while a loop runs or after it, between processes, or by a full
    disk is no mistake of a config and stays as it is. Everything does where
    the variable `MMDET_ATTN_TRACEBACK` is set.

    Args:
        cfg: The config; its file while it is read.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        calls = list(traceback.walk_tb(error.__traceback__))[::-1]
        if os.environ.get(VARIABLE) or _is_no_mistake(error, calls):
            raise
        if isinstance(cfg, Config):
            _building(error, calls, cfg)
        _reading(error, calls, cfg)


def _is_no_mistake(error: Exception, calls: list) -> bool:
    """Whether an error has other causes than a config."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return (
        bool(isinstance(error, ModuleNotFoundError) and missing_extra(error))
        or (isinstance(error, OSError) and error.errno in full)
        or 'distributed' in calls[0][0].f_code.co_filename
        or any(
            frame.f_code.co_name == 'after_run'
            or (
                frame.f_code.co_name == 'run'
                and isinstance(frame.f_locals.get('self'), BaseLoop)
            )
            for frame, _ in calls
        )
    )


def _text(error: BaseException) -> str:
    """The type and the message of the first cause, in one line."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    first = isinstance(error, (KeyError, SyntaxError)) and error.args
    said = error.args[0] if first else error
    text = ' '.join(str(said).split()).strip('.')
    if not text:  # a bare assert
        text = traceback.extract_tb(error.__traceback__)[-1].line or ''
    text = f'{type(error).__name__}: {_short(text, 300)}'
    return f'{text}. {VARIABLE}=1 shows where.'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f'{text[:length]} ...'


def _reading(error: Exception, calls: list, config: Path) -> NoReturn:
    """Raise with the file and the line."""
    file, line = str(config), getattr(error, 'lineno', None)
    for frame, _ in calls:
        if frame.f_code.co_name == '_substitute_base_vars':
            raise InputError(f'{file}: no _base_ has the variable {error}.')
        if frame.f_code.co_name in ('_file2dict', '_is_lazy_import'):
            file = frame.f_locals['filename']
            break
    for frame, number in calls:
        if frame.f_code.co_filename == file:
            line = number
            break
    place = f'{file}, line {line}' if line else file
    raise InputError(f'{place} cannot be read: {_text(error)}')


def _building(error: Exception, calls: list, cfg: Config) -> NoReturn:
    """Raise with the key in the config."""
    nodes = [
        (path, node)
        for path, node in walk(cfg)
        if isinstance(node, Mapping) and isinstance(node.get('type'), str)
    ]
    message = str(error)
    if UNKNOWN.search(message):
        # Where the message has None, the name is in a variable nearby.
        seen = [v for frame, _ in calls for v in frame.f_locals.values()]
        named = [v.get('type') if isinstance(v, Mapping) else v for v in seen]
        named = [v for v in named if isinstance(v, str)]
        for path, node in nodes:
            if node['type'] in named and not _find(node['type']):
                _unknown(path, node['type'])
    if found := ARGUMENT.search(message):
        name, argument = found.groups()
        # What stands beside a wrapped host goes to it.
        having = [
            (p, (n['host'] if wraps(n) else n)['type'])
            for p, n in nodes
            if argument in n
        ]
        having.sort(key=lambda item: _last(item[1]) != name)
        for path, kind in having:
            _unexpected(path, kind, argument)
    for path, node in nodes:
        if 'plugins' in node and not wraps(node):
            _check_plugins(path, node)
    for frame, _ in calls:
        code = frame.f_code
        if 'build' not in code.co_name:
            continue
        for name in code.co_varnames[: code.co_argcount]:
            given = frame.f_locals.get(name)
            for path, node in walk(cfg):
                if _is_part(node, given):
                    _not_built(f'{path}: {_call(node)}', error)
    _not_built('the config', error)


def _not_built(what: str, error: Exception) -> NoReturn:
    message = f'{what} cannot be built: {_text(error)}'
    rank = os.environ.get('LOCAL_RANK', '0')
    if (
        rank != '0'
    ):  # it may fail in this process only; the first shows its own
        print(f'process {rank}: {printable(message)}', file=sys.stderr)
    raise InputError(message)


def _is_part(node: Any, given: Any) -> bool:
    """Whether a builder was given this part, perhaps with more."""
    return (
        isinstance(node, Mapping)
        and isinstance(given, Mapping)
        and len(node) > 1
        and all(given.get(key, _call) == value for key, value in node.items())
    )


def _check_plugins(path: str, host: Mapping) -> None:
    """Refuse wrong plugins of a ResNet, which mmdet asserts to be right."""
    plugins = host['plugins'] or []
    if not isinstance(plugins, (list, tuple)):
        raise InputError(
            f'{path}.plugins must be a list of dict(cfg=dict(type=...), '
            f'position=...), got {plugins!r}.'
        )
    for index, plugin in enumerate(plugins):
        place = f'{path}.plugins.{index}'
        cfg = plugin.get('cfg') if isinstance(plugin, Mapping) else None
        if not isinstance(cfg, Mapping) or 'type' not in cfg:
            raise InputError(
                f'{place} must be dict(cfg=dict(type=...), position=...), '
                f'got {plugin!r}.'
            )
        position, stages = plugin.get('position'), plugin.get('stages')
        if position not in POSITIONS:
            raise InputError(
                f'{place}.position must be one of {", ".join(POSITIONS)}, '
                f'got {position!r}.'
            )
        count = host.get('num_stages', 4)
        if stages is not None and len(stages) != count:
            raise InputError(
                f'{place}.stages must have {count} values, got {stages}.'
            )
    if plugins and host.get('depth') in (18, 34):
        raise InputError(
            f'{path}: {host["type"]}-{host["depth"]} takes no plugins: take '
            "type='mmdet_attn.AttentionResNet'."
        )


def _call(node: Mapping) -> str:
    """A part of a config as a call, without what is nested in it."""
    shown = [
        f'{key}={_short(repr(value), 40)}'
        for key, value in node.items()
        if key not in ('type', '_scope_')
        and not any(isinstance(v, Mapping) for _, v in walk([value]))
    ]
    return f'{_last(node.get("type", ""))}({", ".join(shown)})'


def _last(name: str) -> str:
    return name.rpartition('.')[2]


def _unknown(path: str, name: str) -> NoReturn:
    start, dot, last = name.rpartition('.')
    names = {n for registry in _registries() for n in registry.module_dict}
    if start == 'mmdet_attn':
        import mmdet_attn

        names = {n for n in dir(mmdet_attn) if n[0].isupper()}
    hint = near(last, names, start + dot) or ': is its package imported?'
    raise InputError(f'{path}: there is no type {name!r}{hint}')


def _unexpected(path: str, name: str, argument: str) -> NoReturn:
    if argument == 'plugins':
        raise InputError(
            f'{path}: {name} takes no plugins: mmdet_attn.insert puts them '
            'into any network, see docs/insert.md.'
        )
    hint = near(argument, _arguments(_find(name)))
    raise InputError(f'{path}: {name} has no argument {argument}{hint}')


def _registries() -> list[Registry]:
    roots = [
        value
        for value in vars(mmengine.registry).values()
        if isinstance(value, Registry)
    ]
    return [r for root in roots for r in (root, *root.children.values())]


def _find(name: str) -> Any:
    """What a `type` names, in any registry."""
    for registry in _registries():
        if found := registry.get(name):
            return found
    return None


def _arguments(kind: Any) -> set[str]:
    """The arguments of a constructor and of those that it calls."""
    calls = (
        [kind]
        if not inspect.isclass(kind)
        else [
            vars(base)['__init__']
            for base in kind.__mro__
            if '__init__' in vars(base)
        ]
    )
    return {
        name
        for call in calls
        if callable(call)
        for name in inspect.signature(call).parameters
    }
