"""The manual and the READMEs say what the source says."""

import re
import sys
from dataclasses import replace

import pytest
from conftest import ROOT
from mmengine.config import Config
from modules import MODULES

from mmdet_attn.cost.complexity import complexity
from mmdet_attn.weights.converters import SOURCES

sys.path.insert(0, str(ROOT / 'docs'))

import errors
import tables


def test_every_error_has_an_entry():
    keys = errors.entries()
    lacking = [
        f'{site.place}: {site.message}'
        for site in errors.sites()
        if not any(errors.matches(key, site.message) for key in keys)
    ]
    assert not lacking, '\n'.join(lacking)


def test_every_entry_is_an_error():
    messages = [site.message for site in errors.sites()]
    stale = [
        key
        for key in errors.entries()
        if not any(errors.matches(key, message) for message in messages)
    ]
    assert not stale, '\n'.join(stale)


@pytest.mark.parametrize('readme', tables.WORDS)
def test_tables_of_the_readmes_are_up_to_date(readme):
    text = (ROOT / readme).read_text(encoding='utf-8')
    assert text == tables.filled(readme), 'python docs/tables.py --write'


def test_every_module_is_in_the_tables():
    named = {module.name for module in tables.modules()}
    assert named == MODULES.keys() | {'PSAConv2d', 'SKConv2d'}


@pytest.mark.parametrize(
    ('time', 'speed'),
    [
        (0.99, 'fast'),
        (1.099, 'fast'),
        (1.1, 'medium'),
        (1.3, 'medium'),
        (1.301, 'slow'),
        (None, 'not measured'),
    ],
)
def test_speed_classes(time, speed):
    """The borders are those on the page about cost."""
    assert replace(tables.modules()[0], time=time).speed == speed


def test_times_stand_beside_the_counts():
    times = {module.name: module.time for module in tables.modules()}
    for row in tables.counts_table('eager').splitlines()[3:]:
        name, time = row.strip('| ').split(' | ')[:2]
        assert time == f'{times.pop(name):.2f}'
    assert not times
    assert ': time' not in tables.counts_table('compiled')


@pytest.mark.parametrize('module', tables.modules(), ids=lambda m: m.name)
def test_added_parameters(module):
    assert module.params == tables.added_parameters(module)


@pytest.mark.parametrize('name', tables.facts()['counted'])
def test_rows_that_the_paper_counts_otherwise(name):
    found = complexity(Config.fromfile(ROOT / 'configs' / f'{name}.py'))
    fact = tables.facts()['counted'][name]
    assert round(found.params_m, 2) == fact['params_m']
    assert round(found.gflops, 2) == fact['gflops']


def test_converters_are_in_the_manual():
    text = (ROOT / 'docs' / 'weights.md').read_text(encoding='utf-8')
    named = re.findall(r'^\| `([\w-]+)` \|', text, re.MULTILINE)
    assert sorted(named) == sorted(SOURCES)


def test_released_detectors_are_in_the_manual():
    text = (ROOT / 'docs' / 'coco.md').read_text(encoding='utf-8')
    for config in (ROOT / 'configs' / 'released').glob('*.py'):
        assert f'../configs/released/{config.name}' in text


def test_every_config_of_hosts_is_in_the_manual():
    folder = ROOT / 'configs' / '_base_' / 'hosts'
    rows = tables.hosts_table('').splitlines()[2:]
    assert '<!-- hosts -->' in (ROOT / 'docs' / 'hosts.md').read_text()
    for config in folder.glob('*.py'):
        named = [
            r for r in rows if f'(configs/_base_/hosts/{config.name})' in r
        ]
        assert named, config.name
        (plugin,) = Config.fromfile(config).attention.plugins
        patterns = [plugin.at] if isinstance(plugin.at, str) else plugin.at
        place = 'before ' if plugin.get('place') == 'before' else ''
        cell = '<br>'.join(f'{place}`{pattern}`' for pattern in patterns)
        assert all(f'| {cell} |' in row for row in named), config.name
