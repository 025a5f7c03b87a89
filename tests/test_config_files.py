"""Configs by path and by the name of a package."""

import pytest
from conftest import ROOT, run_here
from mmengine.config import Config

from mmdet_attn.config_files import CONFIGS, find_config, load_config_file
from mmdet_attn.errors import InputError

OURS = 'mmdet_attn::faster_rcnn_r50_eca.py'
WRONG = OURS.replace('eca', 'ecaa')
THEIRS = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'


CONVERT = 'model_converters/convert_checkpoint.py'


def test_names_find_files():
    assert find_config(OURS) == CONFIGS / 'faster_rcnn_r50_eca.py'
    assert find_config(THEIRS).parts[-3:-1] == ('configs', 'retinanet')
    path = 'configs/faster_rcnn_r50_eca.py'
    assert find_config(ROOT / path) == ROOT / path


def test_a_name_reads_as_its_file_does():
    file = ROOT / 'configs/faster_rcnn_r50_eca.py'
    named, read = load_config_file(OURS), Config.fromfile(file)
    assert named.to_dict() == read.to_dict()


@pytest.mark.parametrize('base', [OURS, THEIRS])
def test_base_of_a_config(tmp_path, base):
    file = tmp_path / 'mine.py'
    file.write_text(
        f'_base_ = [{base!r}]\nmodel = dict(backbone=dict(depth=101))\n'
    )
    mine, inherited = load_config_file(file), load_config_file(base)
    assert mine.model.backbone.depth == 101
    # Either builds mmdet's classes: nobody has a scope mmdet_attn.
    assert mine.model.pop('_scope_') == 'mmdet'
    assert mine.default_scope == 'mmdet'
    assert "'_scope_': 'mmdet_attn'" not in str(mine.to_dict())
    for cfg in (mine, inherited):
        cfg.model.backbone.pop('depth')
        cfg.model.pop('_scope_', None)
    assert mine.model.to_dict() == inherited.model.to_dict()


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        (WRONG, 'faster_rcnn_r50_eca.py'),
        (THEIRS.replace('coco', 'cocoo'), THEIRS.partition('::')[2]),
        ('no_such_package::x.py', 'no package no_such_package'),
        ('::x.py', 'no package'),
        ('configs/faster_rcnn_r50_ecaa.py', 'faster_rcnn_r50_eca.py'),
        ('nowhere/x.py', 'nowhere/x.py: no such config'),
    ],
)
def test_wrong_names_are_refused(name, expected, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as caught:
        find_config(name)
    assert expected in str(caught.value)


def test_wrong_base_is_refused(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(f'_base_ = {WRONG!r}\n')
    with pytest.raises(InputError, match=r'faster_rcnn_r50_eca\.py'):
        load_config_file(file)


@pytest.mark.parametrize(
    'command',
    [
        ('train.py', WRONG, '--data-root', 'none'),
        (CONVERT, 'timm', 'x', 'y', '--config', WRONG),
        ('analysis_tools/complexity.py', WRONG),
        ('predict.py', WRONG, 'none.pth', 'docs/demo.jpg'),
    ],
)
def test_tools_take_names(command):
    """What they say of a wrong one shows that they look it up."""
    tool, *arguments = command
    code, output = run_here(f'tools/{tool}', *arguments)
    assert code == 2
    assert f'{WRONG}: no such config; similar ones: faster' in output


def test_work_dir_is_named_after_the_file():
    from mmdet_attn.cli import config_parser, load_config

    for name in (OURS, str(CONFIGS / 'faster_rcnn_r50_eca.py')):
        args = config_parser('').parse_args([name])
        assert load_config(args).work_dir == 'work_dirs/faster_rcnn_r50_eca'
