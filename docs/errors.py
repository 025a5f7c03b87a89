"""The errors that the package raises, and what the manual says about them.

``troubleshooting.md`` names each error by a few words of its message, in
blocks that start with three backticks and ``error``; ``…`` stands for any
text. The manual shows the whole messages there, taken from the source.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'troubleshooting.md'
ANY = '…'
# Here a message is put together from many texts; each counts.
ASSEMBLED = (
    'mmdet_attn/datasets/coco_check.py',
    'mmdet_attn/weights/fit.py',
)
BLOCK = re.compile(r'^```error\n(.*?)^```$', re.M | re.S)


class Site(NamedTuple):
    """A place in the source that raises, and its message or a part of it."""

    place: str
    message: str


def template(node: ast.AST | None) -> str:
    """The text of an expression, with … for what is known only later."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(map(template, node.values))
    if isinstance(node, ast.FormattedValue):
        return template(node.value)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return ANY


def _texts(tree: ast.AST) -> Iterator[ast.expr]:
    """Every text in a file, but for docstrings and parts of other texts."""
    nested = {
        part
        for node in ast.walk(tree)
        if isinstance(node, (ast.JoinedStr, ast.Expr))
        for part in ast.iter_child_nodes(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.JoinedStr, ast.Constant)):
            text = template(node)
            whole = node not in nested and not text.startswith(':')
            if whole and len(text.split()) > 3:
                yield node


def _messages(tree: ast.AST, assembled: bool) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from node.exc.args[:1]
        if isinstance(node, ast.Yield) and node.value:
            yield node.value
    if assembled:
        yield from _texts(tree)


@cache
def sites() -> list[Site]:
    """Every error of the package that has words of its own."""
    found = []
    for file in sorted((ROOT / 'mmdet_attn').rglob('*.py')):
        short = file.relative_to(ROOT).as_posix()
        tree = ast.parse(file.read_text(encoding='utf-8'))
        for node in _messages(tree, short in ASSEMBLED):
            if re.search(r'[A-Za-z]{2}', template(node)):
                found.append(Site(f'{short}:{node.lineno}', template(node)))
    return found


def entries() -> list[str]:
    """What the manual has an entry for."""
    return [
        line.strip()
        for block in BLOCK.findall(PAGE.read_text(encoding='utf-8'))
        for line in block.splitlines()
        if line.strip()
    ]


def matches(key: str, message: str) -> bool:
    """Whether a key is part of a message, or all of it where it has few words.

    A key that starts or ends with … would otherwise cover too much.
    """
    if key.startswith(ANY) or key.endswith(ANY):
        return key == message
    words = map(re.escape, key.split(ANY))
    return re.search('.*?'.join(words), message, re.S) is not None


def shown(block: str, found: list[Site]) -> str:
    """A block of keys as the messages that they stand for."""
    lines = [
        re.sub(f'{ANY}+', ANY, ' '.join(site.message.split()))
        for key in block.splitlines()
        for site in found
        if key.strip() and matches(key.strip(), site.message)
        # What only passes on another message tells a reader nothing.
        if len(re.findall('[a-z]', site.message)) > 4
    ]
    return '\n'.join(dict.fromkeys(lines))
