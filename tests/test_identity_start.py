"""The experiment on the identity start, on the very small set."""

import json

import pytest
import torch
from conftest import ROOT, run_here
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_attn.study.identity_start import (
    Job,
    job_config,
    make_jobs,
    plot_starts,
    run_job,
)

TOOL = 'tools/analysis_tools/identity_start.py'
CONFIG = str(ROOT / 'configs/demo/faster_rcnn_r50_eca_shapes.py')


def test_every_module_starts_both_ways_beside_none():
    jobs = make_jobs(['ECA', 'SE'], [3, 4])
    starts = [(m, s) for m in ('ECA', 'SE') for s in ('paper', 'identity')]
    starts += [(None, 'none')]
    assert len(jobs) == 2 * len(starts)
    assert set(jobs) == {Job(*one, seed) for one in starts for seed in (3, 4)}


def test_starts_differ_in_nothing_else(tmp_path):
    rest = 'epoch_8.pth', tmp_path, 3
    paper, identity = (
        job_config(Job('CBAM', start, 1), Config.fromfile(CONFIG), *rest)
        for start in ('paper', 'identity')
    )
    paper, identity = paper.to_dict(), identity.to_dict()
    (plugin,) = paper['model']['backbone']['plugins']
    assert plugin['cfg'] == {'type': 'mmdet_attn.CBAM'}
    (plugin,) = identity['model']['backbone']['plugins']
    assert plugin['cfg'].pop('identity_init') is True
    for name in ('work_dir', 'experiment_name'):
        assert paper.pop(name) != identity.pop(name)
    del paper['visualizer'], identity['visualizer']
    assert paper == identity
    assert paper['load_from'] == 'epoch_8.pth'


@pytest.mark.slow
def test_identity_start_has_the_ap_of_the_detector(shapes, tmp_path):
    """Before the first step: a detector of random weights will do."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.plugins = None
    trained = tmp_path / 'plain.pth'
    init_default_scope('mmdet')
    torch.manual_seed(0)
    torch.save(MODELS.build(cfg.model).state_dict(), trained)
    rest = CONFIG, str(shapes), str(trained), str(tmp_path), 1
    plain = run_job(Job(None, 'none', 0), *rest)
    inserted = run_job(Job('ECA', 'identity', 1), *rest)
    assert len(plain['ap']) == len(inserted['ap']) == 2
    assert inserted['ap'][0] == plain['ap'][0]
    # The second time it is read, not run.
    (tmp_path / 'ECA_identity_1/result.json').write_text('{"ap": [2]}')
    assert run_job(Job('ECA', 'identity', 1), *rest) == {'ap': [2]}


def test_picture(tmp_path):
    rows = [
        {**job._asdict(), 'ap': [0.1, 0.2, 0.1 * job.seed]}
        for job in make_jobs(['ECA'], [1, 2])
    ]
    file = tmp_path / 'starts.png'
    plot_starts(0.3, json.loads(json.dumps(rows)), file)
    assert file.read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--modules', 'EAC'], 'mmdet_attn has no module EAC'),
        (['--modules', 'GC'], 'GC has no identity_init to compare with'),
        (['--modules', 'LSKA'], 'LSKA needs the argument kernel_size'),
        (['--epochs', '0'], '--epochs must be at least 1, got 0'),
        (['--workers', '0'], '--workers must be at least 1, got 0'),
    ],
)
def test_bad_arguments(arguments, message):
    code, output = run_here(TOOL, *arguments)
    assert code == 2
    assert message in output
