"""Read a training, finished or not, from its work directory."""

import math
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmdet_attn.errors import InputError
from mmdet_attn.study.results.logs import METRICS, Run, join, read_runs
from mmdet_attn.study.results.notes import of_losses, of_runs
from mmdet_attn.study.results.paper import AP
from mmdet_attn.study.results.rows import Identity, identify
from mmdet_attn.study.results.setup import AT_START, facts


@dataclass
class Training:
    """The content of a work directory.

    Attributes:
        name: Name in tables.
        work_dir: The folder.
        cfg: The config of the last run.
        identity: What it trains.
        facts: Its settings.
        train: Records of the loss, in order.
        ap: For `'bbox'` and `'segm'`, AP in percent by epoch.
        notes: Notes on its runs.
    """

    name: str
    work_dir: Path
    cfg: Config
    identity: Identity
    facts: dict[str, str]
    train: list[dict]
    ap: dict[str, dict[int, AP]]
    notes: list[str]

    @property
    def max_epochs(self) -> int:
        return self.cfg.train_cfg.max_epochs

    @property
    def epoch(self) -> int:
        """The last epoch in the log."""
        evaluated = [epoch for found in self.ap.values() for epoch in found]
        trained = [record['epoch'] for record in self.train[-1:]]
        return max([*evaluated, *trained], default=0)

    @property
    def finished(self) -> bool:
        return self.max_epochs in self.ap['bbox']


def read_training(work_dir: str | Path) -> Training:
    """Read a work directory of mmengine.

    Raises:
        InputError: The folder is no work directory, its log is broken, or
            the training goes by iteration.
    """
    path = Path(work_dir)
    if not path.is_dir():
        raise InputError(f'{work_dir}: there is no such folder.')
    if (path / 'vis_data').is_dir():
        raise InputError(
            f'{work_dir} is one run of a work directory: give the folder '
            'around it.'
        )
    started = [
        Run(file.parents[1]) for file in path.glob('*/vis_data/config.py')
    ]
    if not started:
        raise InputError(
            f'{work_dir} holds no log of mmengine (TIMESTAMP/vis_data/): give '
            'the --work-dir of a training.'
        )
    runs = read_runs(path)
    train, val, chain = join(runs)
    if not chain:
        chain = [max(started, key=lambda run: run.folder.name)]
        chain[0].read_text()
    cfg = chain[-1].config
    _check(cfg, path)
    setup = facts(cfg, chain[-1])
    first = facts(chain[0].config, chain[0])
    # A resumed run loads its checkpoint: the first run decides.
    setup |= {key: first[key] for key in AT_START if key in first}
    training = Training(
        path.resolve().name,
        path,
        cfg,
        identify(cfg.model),
        setup,
        train,
        {kind: _ap(val, kind) for kind in ('bbox', 'segm')},
        [],
    )
    training.notes = [
        _progress(training, val),
        *of_losses(train),
        *of_runs(chain, len(runs)),
    ]
    return training


def _check(cfg: Config, path: Path) -> None:
    for part in ('model', 'train_cfg', 'train_dataloader', 'val_dataloader'):
        if not cfg.get(part):
            raise InputError(
                f'{path}: its config has no {part}, so it is not that of a '
                'training with evaluation.'
            )
    hook = (cfg.get('default_hooks') or {}).get('logger') or {}
    if 'max_epochs' not in cfg.train_cfg or (
        not hook.get('log_metric_by_epoch', True)
    ):
        raise InputError(
            f'{path} trains, or logs AP, by iteration: only trainings by '
            "epoch can be set beside the paper's 12 epochs."
        )


def _ap(val: list[dict], kind: str) -> dict[int, AP]:
    keys = [f'coco/{kind}_{metric}' for metric in METRICS]
    return {
        record['step']: AP(*(_percent(record.get(key)) for key in keys))
        for record in val
        if keys[0] in record
    }


def _percent(value: float | None) -> float | None:
    """In percent. COCO's -1 means that there is no object of a size."""
    if value is None or math.isnan(value) or value < 0:
        return None
    return round(100 * value, 1)


def _progress(training: Training, val: list[dict]) -> str:
    where = f'epoch {training.epoch} of {training.max_epochs}'
    boxes = training.ap['bbox']
    if training.finished:
        return f'finished, {where}'
    if not training.train:
        return 'no training was logged yet'
    if not boxes and val:
        other = ', '.join(k for k in val[-1] if '/' in k)
        return f"{where}, evaluated without COCO's box AP ({other})"
    if not boxes:
        return f'{where}, no evaluation yet'
    return f'unfinished, {where}; AP of epoch {max(boxes)}'
