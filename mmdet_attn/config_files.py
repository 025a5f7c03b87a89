"""Config files by name: a path, or `package::file` for an installed package.

`mmdet_attn::faster_rcnn_r50_eca.py` and
`mmdet::retinanet/retinanet_r50_fpn_1x_coco.py` are such names, for our tools
and for the `_base_` of a config. mmengine itself knows OpenMMLab's packages
only; importing this module teaches it ours.
"""

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
