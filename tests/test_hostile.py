"""What others send is read as data: it runs nothing and steers nothing."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CONFIGS, ROOT, user_error
from mmengine.config import Config

from mmdet_attn.config_files import load_config_file, read_dumped
from mmdet_attn.errors import InputError, printable
from mmdet_attn.evaluation.report import table
from mmdet_attn.look.activations import Detection
from mmdet_attn.look.plots import plot_channels
from mmdet_attn.templates import render

SHIPPED = [
    'demo/mask_rcnn_r50_eca_shapes',
    'released/retinanet_r50_eca_k3377',
    'yolox_s_cbam',
    'retinanet_mobilenetv2_eca',
]
RUN = "__import__('pathlib').Path('ran').touch()"
HOSTILE = [
    RUN,
    f'model = {RUN}',
    f'model = dict(type={RUN})',
    f'model = dict(a=1, **{RUN})',
    f'model = dict({RUN})',
    f'model = [dict(a=[{RUN}])]',
    f'model = {{{RUN}: 1}}',
    f"model = f'{{{RUN}}}'",
    f'model = (lambda: {RUN})()',
    f'model = [1 for _ in [{RUN}]]',
    f'model: {RUN} = 1',
    f'x[{RUN}] = 1',
    f'if {RUN}: pass',
    'import ran',
    '@print\nclass A: pass',
    "_base_ = './other.py'",
    'model = dict(type=ran)',
    'model = ' + '(' * 300,
    'model = ' + '-' * 3000 + '1',
    'model = {[]: 1}',
    'model = \0',
    'filename = 1',
]


@pytest.mark.parametrize('name', SHIPPED)
def test_dumped_configs_are_read_as_they_are(name, tmp_path):
    cfg = load_config_file(CONFIGS / f'{name}.py')
    cfg.keys_of_any_kind = {'a.b': [dict(c=None)], '1': (-1, 2.5e-5)}
    file = tmp_path / 'config.py'
    cfg.dump(file)
    assert 'dict(' in file.read_text()
    assert read_dumped(file).to_dict() == Config.fromfile(file).to_dict()
    # mmengine itself cannot read the infinity that it writes.
    cfg.limits = dict(low=float('-inf'), high=float('inf'), empty=())
    cfg.dump(file)
    assert read_dumped(file).to_dict() == cfg.to_dict()


def work_dir(folder: Path, config: str) -> Path:
    """The work directory of somebody's training."""
    file = folder / 'work/20260101_000000/vis_data/config.py'
    file.parent.mkdir(parents=True)
    file.write_text(config)
    (file.parent / 'other.py').write_text(RUN)
    scalars = '{"loss": 1.0, "lr": 0.1, "epoch": 1, "step": 1}\n'
    (file.parent / 'scalars.json').write_text(scalars)
    return folder / 'work'


@pytest.mark.parametrize('config', HOSTILE)
def test_config_of_a_work_directory_runs_nothing(
    config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r'config\.py cannot be read as a'):
        read_dumped(
            work_dir(tmp_path, config) / '20260101_000000/vis_data/config.py'
        )
    assert not list(tmp_path.rglob('ran'))


@pytest.mark.parametrize('config', HOSTILE[:2])
def test_compare_results_runs_nothing(config, tmp_path):
    tool = 'tools/analysis_tools/compare_results.py'
    error = user_error(tool, work_dir(tmp_path, config))
    assert 'no code is run' in error
    assert not (ROOT / 'ran').exists()


def test_numbers_that_no_log_has(tmp_path):
    work = work_dir(tmp_path, 'model = dict()')
    scalars = next(work.rglob('scalars.json'))
    scalars.write_text('{"step": Infinity}\n{"step": 1}\n')
    tool = 'tools/analysis_tools/compare_results.py'
    assert 'line 1: not a record' in user_error(tool, work)


def test_names_do_not_steer_a_terminal():
    name = '\x1b[2J\x1b]0;title\x07\u202e\r'
    shown = printable(f'one {name}\ntwo ü 名')
    assert shown == 'one \\x1b[2J\\x1b]0;title\\x07\\u202e\\r\ntwo ü 名'
    error = user_error('tools/train.py', f'{name}.py')
    assert '\x1b' not in error
    assert '\\x1b[2J' in error
    columns = 'AP AP50 AP75 APs APm APl AR@1 AR_s AR_m AR_l'
    row = dict.fromkeys(columns.split())
    assert '\x1b' not in table('bbox', dict(all=row, classes={name: row}))


def test_markdown_of_names():
    """Neither a terminal nor a page of the Markdown can be steered."""
    from mmdet_attn.study.report import _escape

    shown = _escape('[red]<script>\x1b[2J\n# a | `b`')
    assert shown == r'\[red]\<script>\\x1b\[2J # a \| \`b\`'


def test_names_are_text_in_the_page():
    evil = '"><script>alert(1)</script>'
    page = render(
        'mmdet_attn.look',
        colours=(),
        facts=[(evil, evil)],
        detectors=[(evil, {evil: 1})] * 2,
        detection=1,
        overlap=0.5,
        looking=[
            dict(
                image=evil,
                rows=[
                    dict(
                        place='neck',
                        why=evil,
                        detection=Detection(0, 0.5, ()),
                        classes=(evil,),
                        pictures=[
                            dict(
                                kind='Grad-CAM',
                                level=1,
                                stride=4,
                                picture='data:',
                            )
                        ],
                    )
                ],
            )
        ],
        images=1,
        shown=1,
        score_thr=0.3,
        detections=[dict(image=evil, objects=1, picture='data:')],
        summary=None,
        parts=(),
        little=0.05,
        constant=0.02,
        gates=[],
        shares={},
        factors=None,
        classes=1,
        groups={evil: [0]},
        stages=[],
        adding=[],
        added={},
        without={(evil, evil, evil): 1},
    )
    assert '<script' not in page
    assert page.count('&lt;script&gt;') >= 8


def test_names_are_no_formulas_in_a_plot(tmp_path):
    view = SimpleNamespace(name='a$b$', weights=np.ones((1, 4)))
    groups = {r'$\frac{$': [0], '$x^{$': [0]}
    plot_channels([view], groups, (0, 1), tmp_path / 'a.png')
    assert (tmp_path / 'a.png').stat().st_size
