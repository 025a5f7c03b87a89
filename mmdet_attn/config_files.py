"""Config files by name: a path, or `package::file` for an installed package.

`mmdet_attn::faster_rcnn_r50_eca.py` and
`mmdet::retinanet/retinanet_r50_fpn_1x_coco.py` are such names, for our tools
and for the `_base_` of a config. mmengine itself knows OpenMMLab's packages
only; importing this module teaches it ours.
"""

import ast
import inspect
from difflib import get_close_matches
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from mmengine.config import Config

from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError

PACKAGE = Path(__file__).resolve().parent


def _configs_of(package: Path) -> Path:
    """The folder of configs: where MIM looks, or in a clone."""
    installed = package / '.mim' / 'configs'
    return installed if installed.is_dir() else package.parent / 'configs'


CONFIGS = _configs_of(PACKAGE)
TOOLS = CONFIGS.with_name('tools')


def find_config(name: str | PathLike) -> Path:
    """The file of a config.

    Args:
        name: A path, or `package::file` with a path inside the configs of an
            installed package.

    Raises:
        InputError: There is no such package or file.
    """
    package, is_named, inside = str(name).partition('::')
    folder, file = Path(package).parent, Path(package)
    if is_named:
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.origin:
            raise InputError(f'{name}: no package {package} is installed.')
        folder = _configs_of(Path(spec.origin).parent)
        file = folder / inside
    if file.is_file():
        return file
    known = [
        path.relative_to(folder).as_posix()
        for path in folder.glob('**/*.py' if is_named else '*.py')
    ]
    wanted = inside if is_named else file.name
    near = ', '.join(get_close_matches(wanted, known))
    raise InputError(
        f'{name}: no such config{f"; similar ones: {near}" if near else ""}.'
    )


def load_config_file(name: str | PathLike) -> Config:
    """Read a config by its path or as `package::file`.

    Raises:
        InputError: There is no such package or file, or it cannot be read.
    """
    file = find_config(name)
    with config_errors(file):
        return Config.fromfile(file)


def read_dumped(file: Path) -> Config:
    """Read a config as mmengine dumped it, without running it.

    Such a file sets variables. `dict(...)` is the only call in it.

    Raises:
        InputError: The file cannot be read, or it has anything else.
    """
    try:
        tree = _Values().visit(ast.parse(file.read_text(encoding='utf-8')))
        values = {}
        for line in tree.body:
            if not isinstance(line, ast.Assign):
                raise ValueError(f'line {line.lineno} assigns no value')
            for target in line.targets:
                name = ast.unparse(target)
                if not name.isidentifier() or name == '_base_':
                    raise ValueError(f'line {line.lineno} sets no variable')
                values[name] = ast.literal_eval(line.value)
        return Config(values)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError) as error:
        reason = str(error).partition(': <ast')[0]
    except (RecursionError, MemoryError):
        reason = 'it is nested too deeply'
    raise InputError(
        f'{file} cannot be read as a config: {reason}. Only values are read '
        'from it, and no code is run: take it as mmengine wrote it.'
    )


class _Values(ast.NodeTransformer):
    """Turn `dict(a=1)` into `{'a': 1}`, and the name of inf into its value."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if ast.unparse(node.func) != 'dict' or None in names:
            return node
        if node.args:  # dict({'a.b': 1})
            alone = len(node.args) == 1 and not names
            return node.args[0] if alone else node
        keys: list = [ast.Constant(name) for name in names]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])

    def visit_Name(self, node: ast.Name) -> ast.AST:
        number = node.id in ('inf', 'nan') and isinstance(node.ctx, ast.Load)
        return ast.Constant(float(node.id)) if number else node


def _base_path(name: str, config: str) -> tuple[str, str | None]:
    """The file of a `_base_`, and the scope for what it builds."""
    package, is_named, _ = name.partition('::')
    # Our configs name mmdet's classes: no scope of their own.
    scope = package if is_named and package != PACKAGE.name else None
    file = find_config(name if is_named else Path(config).parent / name)
    # Who reads this file, and who reads that one, ...
    caller = inspect.currentframe()
    while caller := caller and caller.f_back:
        reading = str(caller.f_locals.get('filename'))
        if caller.f_code.co_name == '_file2dict' and file.samefile(reading):
            raise InputError(f'{config}: its _base_ {name} leads back to it.')
    return str(file), scope


Config._get_cfg_path = staticmethod(_base_path)  # type: ignore[method-assign]
