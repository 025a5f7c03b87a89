"""Log a training to TensorBoard, Weights & Biases or MLflow, too."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_attn.errors import InputError

# Packages, and mmengine's backends that need them.
TRACKERS = {
    'tensorboard': 'TensorboardVisBackend',
    'wandb': 'WandbVisBackend',
    'mlflow': 'MLflowVisBackend',
}


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers whose packages are missing.

    Raises:
        InputError: A package is not installed.
    """
    # A folder of that name, such as wandb's own logs, is no package.
    lacking = [
        name
        for name in names
        if getattr(find_spec(name), 'origin', None) is None
    ]
    if lacking:
        raise InputError(
            f'--log-to needs packages that are not installed: pip install '
            f'{" ".join(lacking)}'
        )


def add_trackers(cfg: Config, names: Iterable[str]) -> None:
    """Add trackers to what a config logs to already.

    MLflow logs to a database in the work directory, unless its variable
    `MLFLOW_TRACKING_URI` names another place.

    Args:
        cfg: A config with a work directory, which is changed.
        names: Of `TRACKERS`.
    """
    if not cfg.get('visualizer'):
        cfg.visualizer = dict(type='Visualizer')
    backends = list(cfg.visualizer.get('vis_backends') or [])
    there = [str(backend['type']).rpartition('.')[2] for backend in backends]
    for name in names:
        backend = dict(type=TRACKERS[name])
        if name == 'mlflow':
            backend |= _mlflow(Path(cfg.work_dir).resolve())
        if TRACKERS[name] not in there:
            backends.append(backend)
    cfg.visualizer.vis_backends = backends


def _mlflow(folder: Path) -> dict[str, Any]:
    """Where it logs to. Newer ones refuse mmengine's default, a folder."""
    if address := os.environ.get('MLFLOW_TRACKING_URI'):
        return {'tracking_uri': address, 'exp_name': folder.name}
    return {
        'tracking_uri': f'sqlite:///{folder}/mlflow.db',
        'artifact_location': (folder / 'mlruns').as_uri(),
        # The files of the work directory are beside it.
        'artifact_suffix': (),
        # The experiment that is there already puts files where it wants.
        'exp_name': folder.name,
    }
