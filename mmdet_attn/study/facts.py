"""The facts of a training, which it writes itself to `facts.json`."""

import functools
import json
import math
import platform
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn

from mmdet_attn.datasets.coco_folder import dicts_in
from mmdet_attn.errors import InputError
from mmdet_attn.study.matches import matches_of, write_matches
from mmdet_attn.study.settings import compare, settings
from mmdet_attn.weights.plugins import (
    plugins_of,
    remember_loaded,
    starts_as_identity,
)
from mmdet_attn.weights.save import sha256, versions, write_bytes

SCHEMA = 1
NAME = 'facts.json'
# In mmengine's message hub, and so in checkpoints: what a resume keeps.
HISTORY = 'facts'
# mmdet's names of the statistics of boxes and masks, and those of a report.
LOGGED = re.compile(r'(?:.*/)?(bbox|segm)_mAP(?:_(\w+))?')


def plain(value: Any) -> Any:
    """A value as JSON has it. What JSON cannot hold becomes text."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return getattr(value, '__name__', str(value))


def evaluation(
    epoch: int | None,
    iteration: int | None,
    metrics: dict[str, Any],
    reports: list[dict] = [],  # noqa: B006
) -> dict[str, Any]:
    """What an evaluation has measured.

    Args:
        epoch: The epochs that were done.
        iteration: The iterations that were done.
        metrics: As logged, which may be rounded.
        reports: Those of `FastCocoMetric`, in full precision.
    """
    found: dict[str, Any] = {
        'epoch': epoch,
        'iteration': iteration,
        'metrics': {k: finite(v) for k, v in metrics.items()},
    }
    for key, value in metrics.items():
        if name := LOGGED.fullmatch(key):
            kind = found.setdefault(name[1], {'all': {}, 'classes': {}})
            # COCO's -1 means that there is nothing to find.
            value = None if value == -1 else finite(value)
            kind['all'][f'AP{name[2] or ""}'] = value
    for report in reports:
        found |= {k: v for k, v in report.items() if isinstance(v, dict)}
    return plain(found)


def finite(value: Any) -> float | None:
    """A number; None if it is none, or not finite."""
    try:
        return float(value) if math.isfinite(value) else None
    except (TypeError, ValueError):
        return None


def _harmless(method: Callable) -> Callable:
    """Let a training go on that works but for its facts."""

    @functools.wraps(method)
    def wrapped(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        if not is_main_process():
            return
        try:
            method(self, runner, *args, **kwargs)
        except InputError as error:
            runner.logger.warning(f'{error} The training goes on.')
        except Exception:
            runner.logger.exception(
                f'{NAME} is not up to date; the training goes on.'
            )

    return wrapped


class FactsHook(Hook):
    """Write the facts of a training to `WORK_DIR/facts.json`.

    The first process writes them at the start, after each evaluation and at
    the end, in one step. A checkpoint holds what was known when it was
    written; a training that resumes from it carries on from there.
    """

    def __init__(self) -> None:
        self.history: dict[str, Any] = {}

    def before_run(self, runner: Any) -> None:
        self.loaded = remember_loaded(_network(runner))

    @_harmless
    def before_train(self, runner: Any) -> None:
        self.since = time.perf_counter()
        hub = runner.message_hub
        resumes = runner._resume
        self.history = hub.runtime_info.get(HISTORY) or {
            'weights': None if resumes else _weights(runner),
            'plugins': [
                {'name': name, 'type': type(plugin).__name__, 'start': start}
                for name, (plugin, start) in self._plugins(runner).items()
            ],
            'starts': [],
            'seconds': 0.0,
            'memory_mb': None,
            'lr': [],
            'loss': [],
            'evaluations': [],
            'matches': None,
        }
        self.fixed = _fixed(runner)
        now = datetime.now().astimezone().isoformat(timespec='seconds')
        mine = settings({**self.fixed, **self.history})
        before = self.history.get('settings') or mine
        self.history['settings'] = mine
        self.history['starts'].append(
            {
                'folder': runner.timestamp,
                'iteration': runner.iter,
                'at': now,
                'changed': [list(d) for d in compare(before, mine)],
            }
        )
        hub.update_info(HISTORY, self.history)
        self._write(runner)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        # mmengine resets the peak when it logs.
        if self.history and torch.cuda.is_initialized():
            self._measure()

    @_harmless
    def after_train_epoch(self, runner: Any) -> None:
        if not _by_epoch(runner):
            return
        scalars, epoch = runner.message_hub.log_scalars, runner.epoch + 1
        length = len(runner.train_dataloader)
        if 'train/loss' in scalars:
            mean = finite(scalars['train/loss'].mean(length))
            self.history['loss'].append([epoch, mean])
        if 'train/lr' in scalars:
            last = finite(scalars['train/lr'].current())
            self.history['lr'].append([epoch, last])

    @_harmless
    def before_saving(self, runner: Any) -> None:
        """Count the time up to a checkpoint."""
        now = time.perf_counter()
        self.history['seconds'] += now - self.since
        self.since = now
        self._measure()

    @_harmless
    def before_val(self, runner: Any) -> None:
        for metric in _metrics(runner):
            metric.keep = True

    @_harmless
    def after_val_epoch(
        self, runner: Any, metrics: dict[str, Any] | None = None
    ) -> None:
        reports, matches = [], {}
        for metric in _metrics(runner):
            reports.append(metric.report)
            while metric.evaluators:  # they are large
                kind, evaluator = metric.evaluators.popitem()
                matches[kind] = matches_of(evaluator)
        self.history['matches'] = None
        if matches:
            digest = write_matches(runner.work_dir, matches)
            self.history['matches'] = digest
        epoch = runner.epoch if _by_epoch(runner) else None
        found = evaluation(epoch, runner.iter, metrics or {}, reports)
        self.history['evaluations'].append(found)
        self._write(runner)

    @_harmless
    def after_train(self, runner: Any) -> None:
        self._write(runner, finished=True)

    def _plugins(self, runner: Any) -> dict[str, tuple[nn.Module, str | None]]:
        """The plugins by name, and how each starts."""
        found = {}
        for name, plugin in plugins_of(_network(runner)).items():
            start: str | None = 'no weights'
            if runner._resume:
                start = None  # its first start is not known here
            elif name in self.loaded:
                start = 'loaded'
            elif starts_as_identity(plugin):
                start = 'identity'
            elif plugin.state_dict():
                start = 'fresh'
            found[name] = plugin, start
        return found

    def _measure(self) -> None:
        peak = max(self.history['memory_mb'] or 0, _memory() or 0)
        self.history['memory_mb'] = peak or None

    def _write(self, runner: Any, finished: bool = False) -> None:
        self.before_saving(runner)
        history = dict(self.history)
        del history['settings']
        schedule = {**self.fixed['schedule'], 'lr': history.pop('lr')}
        facts = {
            **self.fixed,
            **history,
            'schedule': schedule,
            'finished': finished,
        }
        text = json.dumps(facts, indent=1, allow_nan=False)
        write_bytes(Path(runner.work_dir, NAME), text.encode())


def _fixed(runner: Any) -> dict[str, Any]:
    """What does not change from the start to the end."""
    cfg, loader = runner.cfg, runner.train_dataloader
    batch = getattr(loader.batch_sampler, 'batch_size', None)
    filename = cfg.filename or runner.work_dir
    val = runner.val_loop
    scale, base = 1.0, runner.auto_scale_lr or {}
    if base.get('enable') and batch:
        scale = runner.world_size * batch / base['base_batch_size']
    return {
        'schema': SCHEMA,
        'name': Path(filename).resolve().stem,
        'finished': False,
        'config': plain(cfg.to_dict()),
        'schedule': {
            'epochs': runner.max_epochs if _by_epoch(runner) else None,
            'iterations_per_epoch': len(loader) if _by_epoch(runner) else None,
            'batch_size': batch and batch * runner.world_size,
        },
        'annotations': {
            'train': _annotations(loader.dataset),
            'val': val and _annotations(val.dataloader.dataset),
        },
        'parameters': sum(p.numel() for p in _network(runner).parameters()),
        'seed': runner.seed,
        'processes': runner.world_size,
        'lr_scale': scale,
        'versions': {**versions(), 'python': platform.python_version()},
        'device': _device(),
    }


def _annotations(dataset: Any) -> str | None:
    """The SHA-256 of the annotation files of a data set."""
    parts = [*getattr(dataset, 'datasets', ())]
    if hasattr(dataset, 'dataset'):
        parts.append(dataset.dataset)
    file = str(getattr(dataset, 'ann_file', None) or '')
    found = [_annotations(part) for part in parts]
    found.append(sha256(file) if Path(file).is_file() else None)
    return '-'.join(digest for digest in found if digest) or None


def _weights(runner: Any) -> dict[str, str | None]:
    """The weights of a first start."""
    found: dict[str, str | None] = {}
    init = init_of(runner.cfg)
    for key, address in (('init', init), ('load_from', runner._load_from)):
        file = Path(address or '')
        found[key] = str(address) if address else None
        found[f'{key}_sha256'] = sha256(file) if file.is_file() else None
    return found


def init_of(cfg: Config) -> str | None:
    """The weights that parts of a model load before a training."""
    found = [
        str(node['checkpoint'])
        for node in dicts_in(cfg.get('model'))
        if str(node.get('type')).endswith('Pretrained')
        and node.get('checkpoint')
    ]
    return ', '.join(dict.fromkeys(found)) or None


def _by_epoch(runner: Any) -> bool:
    return not isinstance(runner.train_loop, IterBasedTrainLoop)


def _metrics(runner: Any) -> list[Any]:
    """The metrics of a validation that are ours."""
    evaluator = getattr(runner.val_loop, 'evaluator', None)
    metrics = getattr(evaluator, 'metrics', ())
    return [metric for metric in metrics if hasattr(metric, 'evaluators')]


def _network(runner: Any) -> nn.Module:
    wrapped = is_model_wrapper(runner.model)
    return runner.model.module if wrapped else runner.model


def _device() -> str:
    kind = get_device()
    if kind == 'cuda':
        return torch.cuda.get_device_name()
    file = Path('/proc/cpuinfo')
    text = file.read_text() if kind == 'cpu' and file.exists() else ''
    name = re.search(r'^model name\s*: (.+)$', text, re.MULTILINE)
    return name[1] if name else platform.processor() or kind


def _memory() -> float | None:
    """The peak in MB: of the GPU, or else of the process."""
    if torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if sys.platform == 'win32':
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == 'darwin' else 2**10), 1)


def read_facts(work_dir: str | Path) -> dict[str, Any]:
    """The facts of a training, from its work directory.

    Without `facts.json` they come from the logs of mmengine, which lack some:
    what is unknown is None.

    Raises:
        InputError: The folder holds no training, or a file is damaged.
    """
    file = Path(work_dir, NAME)
    if not file.exists():
        from mmdet_attn.study.old_logs import read_logs

        return read_logs(work_dir)
    try:
        facts = json.loads(file.read_text(encoding='utf-8'))
        schema = int(facts['schema'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f'{file} cannot be read as the facts of a training ({error}): '
            'move it away, and what the logs beside it have is taken.'
        ) from None
    if schema > SCHEMA:
        raise InputError(
            f'{file} is of a newer mmdet_attn (schema {schema}, this one '
            f'reads up to {SCHEMA}): update mmdet_attn.'
        )
    return facts
