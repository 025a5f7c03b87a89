"""A study file: a question, and the trainings that answer it."""

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mmdet_attn.config_checks import near
from mmdet_attn.config_files import CONFIGS, find_config
from mmdet_attn.errors import InputError

# A name is a folder, and it stands in file names and in tables.
NAME = re.compile(r'[A-Za-z0-9][\w.-]*')
NONE = 'none'
# How a training is changed: of all, of a base, of an attention.
CHANGES = {'epochs', 'image_scale', 'load_from', 'non_strict', 'options'}
KEYS = {
    'a study': {
        *('name', 'work_dir', 'data_root', 'base', 'attention', 'seeds'),
        *('launch', *CHANGES),
    },
    'a base': {'name', 'config', *CHANGES},
    'an attention': {
        *('name', 'plugin', 'at', 'place', 'position', 'stages', 'blocks'),
        *CHANGES,
    },
    'a local launch': {'kind', 'gpus', 'at_once', 'cores'},
    'a slurm launch': {
        *('kind', 'gpus', 'at_once', 'cores', 'partition', 'nodes', 'time'),
        'parameters',
    },
}
# A job gets notice two minutes before its time is over.
COUNTS = {'gpus': 0, 'at_once': 1, 'cores': 1, 'nodes': 1, 'time': 5}


class Run(NamedTuple):
    """One training of a study.

    Attributes:
        base: The entry of the detector. It has `name` and `config`.
        attention: The entry of the attention. It has `name`.
        seed: The seed.
    """

    base: dict[str, Any]
    attention: dict[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """The name of its config and of its folder."""
        return f'{self.configuration}_seed{self.seed}'

    @property
    def configuration(self) -> str:
        """What runs of different seeds share."""
        return f'{self.base["name"]}_{self.attention["name"]}'


class Study(NamedTuple):
    """What a study file says.

    Attributes:
        name: The name of the study.
        folder: Gets everything.
        data_root: A folder in COCO format. None is that of the configs.
        changes: How all trainings are changed.
        launch: How trainings are started.
        runs: All trainings, those without attention first.
        text: The study file.
    """

    name: str
    folder: Path
    data_root: str | None
    changes: dict[str, Any]
    launch: dict[str, Any]
    runs: list[Run]
    text: str

    def changes_of(self, run: Run) -> dict[str, Any]:
        """How a training is changed, by all entries that concern it."""
        found: dict[str, Any] = {'options': {}}
        for entry in (self.changes, run.base, run.attention):
            options = found['options'] | entry.get('options', {})
            found |= {k: v for k, v in entry.items() if k in CHANGES}
            found['options'] = options
        return found

    def work_dir(self, run: Run) -> Path:
        """The work directory of a training."""
        return self.folder / 'runs' / run.name

    def config(self, run: Run) -> Path:
        """The config of a training."""
        return self.folder / 'configs' / f'{run.name}.py'


def read_study(file: str | Path) -> Study:
    """Read a study file, or the one that a folder of a study holds.

    Raises:
        InputError: The file cannot be read, or it has a key or a value that
            nothing could use.
    """
    path, folder = Path(file), None
    if path.is_dir():
        folder, path = path, path / 'study.yaml'
    try:
        text = path.read_text(encoding='utf-8')
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise InputError(
            f'{file} cannot be read as a study file: {reason}.'
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(
            f'{file} must set name, base, attention and seeds, got '
            f'{str(content)[:40]!r}.'
        )
    _check_keys('a study', content)
    lacking = {'name', 'base', 'attention', 'seeds'} - content.keys()
    if lacking:
        raise InputError(
            f'{file} is no study: it lacks {", ".join(sorted(lacking))}.'
        )
    name = _name('a study', content['name'])
    bases = [_base(entry) for entry in _list('base', content['base'])]
    attention = [
        _attention(entry) for entry in _list('attention', content['attention'])
    ]
    if all(entry['name'] != NONE for entry in attention):
        attention.insert(0, {'name': NONE})
    attention.sort(key=lambda entry: entry['name'] != NONE)
    seeds = _list('seeds', content['seeds'])
    for seed in seeds:
        if type(seed) is not int or seed < 0:
            raise InputError(
                f'seeds must be whole numbers from 0 on, got {seed!r}.'
            )
    for what, names in (
        ('base', [entry['name'] for entry in bases]),
        ('attention', [entry['name'] for entry in attention]),
        ('seeds', seeds),
    ):
        twice = {each for each in names if names.count(each) > 1}
        if twice:
            raise InputError(
                f'{what} has {twice.pop()} more than once: give each a name '
                'of its own.'
            )
    runs = [Run(*each) for each in product(bases, attention, seeds)]
    data_root = content.get('data_root')
    return Study(
        name,
        folder or Path(content.get('work_dir') or Path('work_dirs', name)),
        None if data_root is None else str(data_root),
        _changes('a study', content),
        _launch(content.get('launch') or {}),
        runs,
        text,
    )


def _list(what: str, value: Any) -> list:
    if not isinstance(value, list) or not value:
        raise InputError(
            f'{what} must be a list of at least one, got {value!r}.'
        )
    return value


def _check_keys(what: str, entry: Mapping) -> None:
    for key in entry:
        if key not in KEYS[what]:
            raise InputError(
                f'{what} has no key {key!r}'
                f'{near(str(key), KEYS[what]) or "."} It may have '
                f'{", ".join(sorted(KEYS[what]))}.'
            )


def _name(what: str, name: Any) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f'the name of {what} must be made of letters, digits, ".", "_" '
            f'and "-", got {name!r}.'
        )
    return name


def _entry(what: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {'name': entry}
    if not isinstance(entry, Mapping) or 'name' not in entry:
        raise InputError(f'{what} must be a name, or have one, got {entry!r}.')
    _check_keys(what, entry)
    return {**entry, **_changes(what, entry)}


def _base(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {'name': Path(entry.partition('::')[2] or entry).stem} | {
            'config': entry
        }
    found = _entry('a base', entry)
    _name('a base', found['name'])
    config = str(found.get('config', found['name']))
    inside = CONFIGS / f'{config}.py'
    found['config'] = str(inside if inside.is_file() else find_config(config))
    return found


def _attention(entry: Any) -> dict[str, Any]:
    found = _entry('an attention', entry)
    name = _name('an attention', found['name'])
    plugin = found.get('plugin')
    if name == NONE:
        if found.keys() - {'name', *CHANGES}:
            raise InputError(f'attention {NONE} has no plugin, got {found}.')
        return found
    if plugin is None:
        extra = found.keys() & {'at', 'place', 'position', 'stages', 'blocks'}
        if extra:
            raise InputError(
                f'attention {name}: {", ".join(sorted(extra))} needs a '
                'plugin, such as {type: mmdet_attn.ECA, identity_init: true}.'
            )
        file = CONFIGS / '_base_' / 'attention' / f'{name}.py'
        if not file.is_file():
            known = {path.stem for path in file.parent.glob('*.py')}
            raise InputError(
                f'attention {name}: there is no _base_/attention/{name}.py'
                f'{near(name, known) or "."} An attention of your own has a '
                'plugin: {name: ..., plugin: {type: mmdet_attn.ECA}}.'
            )
    elif not isinstance(plugin, Mapping) or 'type' not in plugin:
        raise InputError(
            f'attention {name}: plugin must have a type, got {plugin!r}.'
        )
    return found


def _changes(what: str, entry: Mapping) -> dict[str, Any]:
    found = {key: entry[key] for key in sorted(CHANGES & entry.keys())}
    options = found.setdefault('options', {}) or {}
    if not isinstance(options, Mapping):
        raise InputError(
            f'options of {what} must be keys and values, such as '
            f'{{train_dataloader.batch_size: 4}}, got {options!r}.'
        )
    found['options'] = dict(options)
    if type(found.get('non_strict', False)) is not bool:
        raise InputError(
            f'non_strict must be true or false, got {found["non_strict"]!r}.'
        )
    scale = found.get('image_scale', [1, 1])
    if not isinstance(scale, list) or [type(s) for s in scale] != [int, int]:
        raise InputError(
            f'image_scale must be [width, height], got {scale!r}.'
        )
    return found


def _launch(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise InputError(f'launch must have a kind, got {entry!r}.')
    kind = entry.get('kind', 'local')
    if kind not in ('local', 'slurm'):
        raise InputError(
            f"launch: kind must be 'local' or 'slurm', got {kind!r}."
        )
    _check_keys(f'a {kind} launch', entry)
    for key, least in COUNTS.items():
        value = entry.get(key, least)
        if type(value) is not int or value < least:
            raise InputError(
                f'launch: {key} must be a whole number from {least} on, got '
                f'{value!r}.'
            )
    if kind == 'slurm' and 'time' not in entry:
        raise InputError(
            'launch: slurm needs time, the minutes that a job may take: a '
            'training that takes longer is queued again, and carries on.'
        )
    parameters = entry.get('parameters', {})
    if not isinstance(parameters, Mapping):
        raise InputError(
            'launch: parameters must be keys and values, such as {account: '
            f'vision}}, got {parameters!r}.'
        )
    at_once = 1 if kind == 'local' else 1000
    return {'kind': kind, 'gpus': 1, 'at_once': at_once, **entry}
