"""Modules of a network, found by patterns over their names."""

import difflib
import fnmatch
import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from mmdet_attn.errors import InputError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find(
    host: Any, at: str | Sequence[str], place: str = 'after'
) -> list[str]:
    """The names of the modules that patterns match; each must match one.

    Modules inside of plugins do not count.
    """
    own = host.insertions.plugins if hasattr(host, 'insertions') else []
    inside = {module for plugin in own for module in plugin.modules()}
    names = [n for n, m in host.named_modules() if n and m not in inside]
    found: list[str] = []
    for pattern in [at] if isinstance(at, str) else at:
        matching = _expression(pattern).fullmatch
        matched = [name for name in names if matching(name)]
        if not matched:
            raise InputError(
                f'insert: at={pattern!r} matches no module of '
                f'{type(host).__name__}.{nearest(pattern, names)}'
            )
        _refuse_nested(pattern, matched)
        found += [end_of(host, name, place) for name in matched]
    return list(dict.fromkeys(found))


def _refuse_nested(pattern: str, matched: list[str]) -> None:
    """Refuse a pattern that takes a module and what is in it.

    Such a pattern is a slip: `layer4.*` is every module of stage 4, where
    `layer4.?` is its blocks.
    """
    # Names come in the order of the tree.
    for outer, inner in pairwise(matched):
        if inner.startswith(f'{outer}.'):
            raise InputError(
                f'insert: at={pattern!r} matches {outer!r} and, inside of it, '
                f'{inner!r}, as * matches dots too: write ? for one digit, '
                'or give a list of two patterns.'
            )


def _expression(pattern: str) -> re.Pattern:
    rest = pattern.removeprefix('re:')
    try:
        return re.compile(rest if rest != pattern else fnmatch.translate(rest))
    except re.error as error:
        raise InputError(
            f'insert: at={pattern!r} is not a regular expression: {error}.'
        ) from error


def nearest(name: str, names: Collection[str]) -> str:
    """A sentence with the names most like a name or pattern."""
    near = difflib.get_close_matches(name, names, 5, 0)
    return f' The nearest names are {", ".join(near)}.' if near else ''


def end_of(host: nn.Module, name: str, place: str = 'after') -> str:
    """The last or first module of a plain Sequential, or the module."""
    module: Any = host.get_submodule(name)
    while type(module).forward is nn.Sequential.forward and len(module):
        key = [*module._modules][0 if place == 'before' else -1]
        name, module = f'{name}.{key}', module.get_submodule(key)
    runs = type(module).forward is not nn.Module.forward
    if runs and isinstance(module, CONTAINERS):
        raise InputError(
            f'insert: {name!r} runs all modules that are in it, a plugin too: '
            'take one of them, or the module that has it.'
        )
    return name
