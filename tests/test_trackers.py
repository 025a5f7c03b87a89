"""--log-to: trackers beside what a config logs to, with their packages."""

import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from conftest import (
    DEMO,
    ROOT,
    load_config,
    quick_options,
    run_tool,
    user_error,
)

from mmdet_attn.training import trackers
from mmdet_attn.training.trackers import add_trackers

ALL = ['tensorboard', 'wandb', 'mlflow']


def types(cfg):
    return [backend['type'] for backend in cfg.visualizer.vis_backends]


def test_they_are_added(tmp_path):
    cfg = load_config('faster_rcnn_r50')
    cfg.work_dir = str(tmp_path)
    add_trackers(cfg, ALL)
    added = [
        f'{name}VisBackend' for name in ('Tensorboard', 'Wandb', 'MLflow')
    ]
    assert types(cfg) == ['LocalVisBackend', *added]
    add_trackers(cfg, ALL)
    assert types(cfg) == ['LocalVisBackend', *added]


def test_mlflow_logs_where_its_variable_says(tmp_path, monkeypatch):
    cfg = load_config('faster_rcnn_r50')
    cfg.work_dir = str(tmp_path)
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://somewhere:5000')
    add_trackers(cfg, ['mlflow'])
    backend = cfg.visualizer.vis_backends[-1]
    assert backend['tracking_uri'] == 'http://somewhere:5000'


def test_a_missing_package_is_named(monkeypatch):
    """Before anything else is looked at; a folder wandb/ is no package."""
    there = SimpleNamespace(origin='__init__.py')
    found = {'tensorboard': there, 'wandb': SimpleNamespace(origin=None)}
    monkeypatch.setattr(trackers, 'find_spec', found.get)
    message = user_error('tools/train.py', 'none.py', '--log-to', *ALL)
    assert 'pip install wandb mlflow' in message
    assert 'none.py' not in message


def tensorboard_has(work, losses):
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    (events,) = work.glob('*/vis_data/events.out.*')
    found = EventAccumulator(str(events))
    found.Reload()
    values = [event.value for event in found.Scalars('loss')]
    assert values == pytest.approx(losses)


def wandb_has(work, losses):
    """No package reads its file; numbers are text in it."""
    (file,) = work.glob('*/vis_data/wandb/offline-run-*/run-*.wandb')
    content = file.read_bytes()
    for loss in losses:
        assert str(loss).encode() in content


def mlflow_has(work, losses):
    from mlflow import MlflowClient

    client = MlflowClient(f'sqlite:///{work}/mlflow.db')
    (experiment,) = client.search_experiments(
        filter_string=f"name = '{work.name}'"
    )
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == 'FINISHED'
    history = client.get_metric_history(run.info.run_id, 'loss')
    assert [point.value for point in history] == pytest.approx(losses)
    assert not (ROOT / 'mlruns').exists()


HAS = dict(zip(ALL, (tensorboard_has, wandb_has, mlflow_has), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize('name', HAS)
def test_a_training_is_tracked(shapes, tmp_path, name):
    if find_spec(name) is None:
        pytest.skip(f'needs the package {name}')
    run_tool(
        *('tools/train.py', DEMO, '--log-to', name),
        *quick_options(shapes, tmp_path),
        'train_cfg.max_epochs=1',
        WANDB_MODE='offline',
    )
    (own,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = map(json.loads, own.read_text().splitlines())
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 2
    HAS[name](tmp_path, losses)
