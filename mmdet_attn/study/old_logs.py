"""The facts of a training that has no `facts.json`, from mmengine's logs."""

import json
import re
from datetime import datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_attn.config_files import read_dumped
from mmdet_attn.errors import InputError
from mmdet_attn.study.facts import SCHEMA, evaluation, finite, init_of, plain
from mmdet_attn.study.settings import compare, settings

# Epoch, iteration and iterations per epoch of a line of a training log.
FIRST = re.compile(r'Epoch\(train\)\s*\[\s*(\d+)\]\[\s*(\d+)/(\d+)\]')
RESUMED = re.compile(r'resumed epoch: \d+, iter: (\d+)')
# One row of AttentionPretrained's table.
STATUS = re.compile(
    r'^  (\S+) +(\d+)  (loaded|identity|fresh|no weights)$', re.MULTILINE
)
# What else the text log has.
KNOWN = {
    'seed': (int, r'^ +seed: (\d+)$'),
    'processes': (int, r'^ +GPU number: (\d+)$'),
    'lr_scale': (float, r'Scaling the original LR by ([\d.e+-]+\d)'),
    'device': (str, r'^ +GPU [\d,]+: (.+)$'),
    'torch': (str, r'^ +PyTorch: (\S+)$'),
    'mmengine': (str, r'^ +MMEngine: (\S+)$'),
}


class Run:
    """One start of a training.

    Attributes:
        folder: `WORK_DIR/TIMESTAMP`.
        train: Records of the training loss.
        val: Records of evaluations. Their `step` is the epoch.
        begin: Iterations of earlier runs.
        length: Iterations in an epoch. None if there is no text log.
        known: What else the text log has.
        plugins: As in the facts. None if the text log does not have them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train: list[dict] = []
        self.val: list[dict] = []
        for record in _records(folder / 'vis_data' / 'scalars.json'):
            if 'loss' in record:
                self.train.append(record)
            elif record['step'] > 0:  # evaluated in a training
                self.val.append(record)
        log = folder / f'{folder.name}.log'
        text = log.read_text(errors='replace') if log.exists() else ''
        self.known = {
            key: kind(found[1]) if found else None
            for key, (kind, pattern) in KNOWN.items()
            for found in [re.search(pattern, text, re.MULTILINE)]
        }
        self.plugins = [
            {'name': name, 'type': None, 'start': start}
            for name, count, start in STATUS.findall(text)
            for _ in range(int(count))
        ] or None
        self.length: int | None = None
        self.begin = self.train[0]['step'] - 1 if self.train else 0
        if self.train and (found := FIRST.search(text)):
            _, done, self.length = map(int, found.groups())
            self.begin = self.train[0]['step'] - done
        if self.train and (found := RESUMED.search(text)):
            self.begin = int(found[1])  # within an epoch, too

    @cached_property
    def config(self) -> Any:
        """The config of this run. None if there is none."""
        file = self.folder / 'vis_data' / 'config.py'
        return read_dumped(file) if file.exists() else None

    @property
    def resumes(self) -> bool:
        """Whether it carries on from an earlier run."""
        may = self.config is None or self.config.get('resume')
        return bool(may and self.begin)


def read_logs(work_dir: str | Path) -> dict[str, Any]:
    """The facts of a training, from the files of mmengine.

    AP is rounded as it was logged. The loss of an epoch is the mean of what
    was logged, which mmengine smooths. What is not in the logs is None.

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
    folders = sorted(file.parent for file in path.glob('*/vis_data'))
    runs = [Run(folder) for folder in folders]
    logged = [run for run in runs if run.train]
    # Of a training that has logged nothing yet, its config is known.
    chain = logged or runs[-1:]
    train: list[dict] = []
    val: list[dict] = []
    starts: list[Run] = []
    for run in chain:
        if not run.resumes:
            train, val, starts = [], [], []
        # A resume may repeat the last evaluation.
        evaluated = [record['step'] for record in run.val]
        epochs = [record.get('epoch', 1) for record in run.train[:1]]
        first = min([*epochs, *evaluated], default=1)
        train = [r for r in train if r['step'] <= run.begin] + run.train
        val = [r for r in val if r['step'] < first] + run.val
        starts.append(run)
    configs = [run for run in starts if run.config]
    if not configs:
        raise InputError(
            f'{work_dir} holds no log of mmengine (TIMESTAMP/vis_data/) and '
            'no facts.json: give the --work-dir of a training.'
        )
    _check(configs[-1].config, path)
    facts = _facts(configs[-1], configs[0], path)
    for before, run in zip([None, *configs], configs, strict=False):
        mine = settings(_facts(run, configs[0], path))
        other = settings(_facts(before, configs[0], path)) if before else mine
        facts['starts'].append(
            {
                'folder': run.folder.name,
                'iteration': run.begin,
                'at': _time(run.folder.name),
                'changed': [list(d) for d in compare(other, mine)],
            }
        )
    by_epoch = [
        (epoch, list(records))
        for epoch, records in groupby(train, lambda r: r.get('epoch'))
        if epoch is not None
    ]
    facts['loss'] = [
        [epoch, finite(sum(r['loss'] for r in records) / len(records))]
        for epoch, records in by_epoch
    ]
    facts['schedule']['lr'] = [
        [epoch, finite(records[-1].get('lr'))] for epoch, records in by_epoch
    ]
    facts['memory_mb'] = max([r.get('memory', 0) for r in train], default=0)
    facts['memory_mb'] = facts['memory_mb'] or None
    facts['evaluations'] = [
        evaluation(record['step'], None, _metrics(record)) for record in val
    ]
    last = facts['schedule']['epochs']
    facts['finished'] = any(e['epoch'] == last for e in facts['evaluations'])
    return facts


def _facts(run: Run, first: Run, path: Path) -> dict[str, Any]:
    """What the config and the text log of a run have."""
    cfg, known = run.config, run.known
    batch = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
    start = first.config
    return {
        'schema': SCHEMA,
        'name': path.resolve().name,
        'config': plain(cfg.to_dict()),
        'schedule': {
            'epochs': cfg.train_cfg.get('max_epochs'),
            'iterations_per_epoch': run.length,
            'batch_size': known['processes'] and batch * known['processes'],
        },
        'weights': {
            'init': init_of(start),
            # With resume, it is the checkpoint to carry on from.
            'load_from': None
            if start.get('resume')
            else start.get('load_from'),
        },
        'plugins': first.plugins,
        'annotations': None,
        'parameters': None,
        'seed': known['seed'],
        'processes': known['processes'],
        'lr_scale': known['lr_scale'] or (known['processes'] and 1.0),
        'versions': {key: known[key] for key in ('torch', 'mmengine')},
        'device': known['device'],
        'starts': [],
        'seconds': None,
        'matches': None,
    }


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


def _metrics(record: dict) -> dict[str, Any]:
    return {key: value for key, value in record.items() if '/' in key}


def _time(name: str) -> str | None:
    try:
        return datetime.strptime(name, '%Y%m%d_%H%M%S').isoformat()
    except ValueError:
        return None


def _records(file: Path) -> list[dict]:
    """The lines of a log; a crash may have cut off the last one."""
    found: list[dict] = []
    if not file.exists():
        return found
    # Not splitlines, which also splits inside of strings. A crash of the
    # machine may leave zeros at the end.
    lines = file.read_text(errors='replace').rstrip('\0\n').split('\n')
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            found.append({**record, 'step': int(record['step'])})
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            if number == len(lines):
                break
            raise InputError(
                f'{file}, line {number}: not a record of mmengine '
                f'({line[:40]!r}); only the last line may be cut off. '
                'Delete that line, or leave this folder out.'
            ) from error
    return found
