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
PACKAGE = ROOT / 'mmdet_attn'
PAGE = ROOT / 'docs' / 'troubleshooting.md'
ANY = '…'
# Here a message is put together from many texts; each counts.
ASSEMBLED = ('mmdet_attn/weights/fit.py',)
BLOCK = re.compile(r'^```error\n(.*?)^```$', re.M | re.S)


class Site(NamedTuple):
    """A place in the source that raises, and its message or a part of it."""

    place: str
    message: str


def template(node: ast.expr | None, values: dict[str, str]) -> str:
    """The text of an expression, with … for what is known only later."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(template(part, values) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return template(node.value, values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left, values) + template(node.right, values)
    if isinstance(node, ast.Name):
        return values.get(node.id, ANY)
    return ANY


def _name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition('.')[2]


def _raises(function: ast.AST) -> Iterator[tuple[ast.Raise, ast.Call]]:
    """What a function raises with a message of its own."""
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield node, node.exc


class _Source:
    """All functions of the package, and which of them only phrase errors."""

    def __init__(self, package: Path) -> None:
        self.trees = {
            file: ast.parse(file.read_text(encoding='utf-8'))
            for file in sorted(package.rglob('*.py'))
        }
        self.root = package.parent
        self.functions = [
            node
            for tree in self.trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        ]

    def parameters(self, function: ast.FunctionDef) -> list[str]:
        names = [arg.arg for arg in function.args.args]
        return names[names[:1] in (['self'], ['cls']) :]

    def constants(self, tree: ast.AST) -> dict[str, str]:
        """Texts with a name at the top of a file."""
        return {
            node.targets[0].id: template(node.value, {})
            for node in getattr(tree, 'body', ())
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }

    def helpers(self) -> dict[str, tuple[ast.FunctionDef, ast.expr]]:
        """Functions that raise a text that their caller gives."""
        found = {}
        for function in self.functions:
            names = set(self.parameters(function))
            for _, call in _raises(function):
                used = {
                    node.id
                    for arg in call.args
                    for node in ast.walk(arg)
                    if isinstance(node, ast.Name)
                }
                if call.args and used & names:
                    found[function.name] = function, call.args[0]
        return found

    def sites(self) -> Iterator[Site]:
        helpers = self.helpers()
        texts = {function.name: function for function in self.functions}
        for file, tree in self.trees.items():
            known = self.constants(tree)
            short = file.relative_to(self.root).as_posix()
            for node, call in _raises(tree):
                place = f'{short}:{node.lineno}'
                message = template(call.args[0], known) if call.args else ''
                if not re.search(r'\w{2}', message) and call.args:
                    # The text is put together elsewhere.
                    maker = texts.get(_called(call.args[0]))
                    for text in _returned(maker) if maker else ():
                        yield Site(place, text)
                yield Site(place, message)
            if short in ASSEMBLED:
                yield from _texts(tree, short)
            for node in ast.walk(tree):
                if isinstance(node, ast.Yield):
                    # Generators list the parts of a message.
                    text = template(node.value, known)
                    if len(text.split()) > 2:
                        yield Site(f'{short}:{node.lineno}', text)
                if isinstance(node, ast.Call) and _name(node.func) in helpers:
                    function, text = helpers[_name(node.func)]
                    names = self.parameters(function)
                    given = dict(zip(names, node.args, strict=False))
                    given |= {k.arg: k.value for k in node.keywords if k.arg}
                    values = {
                        name: value
                        for name, arg in given.items()
                        # A sentence, not a flag or the name of an argument.
                        if len((value := template(arg, known)).split()) > 2
                    }
                    if values:
                        yield Site(
                            f'{short}:{node.lineno}',
                            template(text, known | values),
                        )


def _texts(tree: ast.AST, short: str) -> Iterator[Site]:
    """Every text of some words in a file, but for docstrings."""
    nested = {
        part
        for node in ast.walk(tree)
        if isinstance(node, (ast.JoinedStr, ast.Expr))
        for part in ast.iter_child_nodes(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.JoinedStr, ast.Constant)):
            text = template(node, {})
            if (
                node not in nested
                and len(text.split()) > 3
                and not text.startswith(':')
            ):
                yield Site(f'{short}:{node.lineno}', text)


def _called(node: ast.expr) -> str:
    return _name(node.func) if isinstance(node, ast.Call) else ''


def _returned(function: ast.FunctionDef) -> list[str]:
    return [
        template(node.value, {})
        for node in ast.walk(function)
        if isinstance(node, ast.Return)
    ]


@cache
def sites(package: Path = PACKAGE) -> list[Site]:
    """Every error of the package that has words of its own."""
    found = _Source(package).sites()
    return [site for site in found if re.search(r'[A-Za-z]{2}', site.message)]


def entries(text: str | None = None) -> list[str]:
    """What the manual has an entry for."""
    text = PAGE.read_text(encoding='utf-8') if text is None else text
    return [
        line.strip()
        for block in BLOCK.findall(text)
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
