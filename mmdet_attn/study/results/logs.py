"""Read the logs and configs that mmengine wrote to a work directory."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from mmdet_attn.config_files import read_dumped
from mmdet_attn.errors import InputError
from mmdet_attn.study.results.attention import unwrap

METRICS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
AP_KEYS = ('coco/bbox_mAP', 'coco/segm_mAP')
# Epoch, iteration and iterations per epoch of a line of a training log.
FIRST = re.compile(r'Epoch\(train\)\s*\[\s*(\d+)\]\[\s*(\d+)/(\d+)\]')
RESUMED = re.compile(r'resumed epoch: \d+, iter: (\d+)')
PROCESSES = re.compile(r'^ +GPU number: (\d+)$', re.MULTILINE)
SCALED = re.compile(r'Scaling the original LR by ([\d.e+-]+\d)')
# One row of AttentionPretrained's table.
STATUS = re.compile(
    r'^  \S+ +\d+  (loaded|identity|fresh|no weights)$', re.MULTILINE
)


@dataclass
class Run:
    """One start of a training.

    Attributes:
        folder: `WORK_DIR/TIMESTAMP`.
        train: Records of the training loss. `at` is their place in epochs.
        val: Records of evaluations. Their `step` is the epoch.
        cut: Whether the last line of the log is incomplete.
        begin: Iterations of earlier runs.
        processes: Number of processes. None if the log is missing.
        lr_scale: Factor of `--auto-scale-lr` on the learning rate.
        starts: How plugins start, as `AttentionPretrained` logged it.
    """

    folder: Path
    train: list[dict] = field(default_factory=list)
    val: list[dict] = field(default_factory=list)
    cut: bool = False
    begin: int = 0
    processes: int | None = None
    lr_scale: float = 1.0
    starts: frozenset[str] = frozenset()

    @property
    def config_file(self) -> Path:
        return self.folder / 'vis_data' / 'config.py'

    @cached_property
    def config(self) -> Config:
        """The config of this run."""
        cfg = read_dumped(self.config_file)
        cfg.model = unwrap(cfg.get('model'))
        return cfg

    @property
    def resumes(self) -> bool:
        """Whether it may carry on from an earlier run."""
        return not self.config_file.exists() or bool(self.config.get('resume'))

    def read_text(self) -> None:
        """Read the fields that only the text log has."""
        log = self.folder / f'{self.folder.name}.log'
        text = log.read_text(errors='replace') if log.exists() else ''
        if processes := PROCESSES.search(text):
            self.processes = int(processes[1])
        if scaled := SCALED.search(text):
            self.lr_scale = float(scaled[1])
        self.starts = frozenset(STATUS.findall(text))
        if not self.train:
            return
        first = self.train[0]['step']
        if found := FIRST.search(text):
            epoch, done, length = map(int, found.groups())
            self.begin = first - done
            start = self.begin - (epoch - 1) * length
            if resumed := RESUMED.search(text):  # within an epoch, too
                self.begin = int(resumed[1])
            for record in self.train:
                record['at'] = (record['step'] - start) / length
        else:
            # The length of an epoch is unknown: take the end of the epoch.
            self.begin = first - 1
            for record in self.train:
                record['at'] = record.get('epoch', record['step'])


def read_runs(work_dir: str | Path) -> list[Run]:
    """Every run that logged a training loss, in order of time.

    Raises:
        InputError: A line of a log, except for the last one, is broken.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    runs = [_read(file) for file in files]
    return [run for run in runs if run.train]


def join(runs: list[Run]) -> tuple[list[dict], list[dict], list[Run]]:
    """Join the records of training and of evaluation, and list their runs.

    A run that resumes replaces all records after its checkpoint. A run that
    starts from the beginning replaces all records.
    """
    train: list[dict] = []
    val: list[dict] = []
    chain: list[Run] = []
    for run in runs:
        if not run.resumes or not run.begin:
            train, val, chain = [], [], []
        # A resume may repeat the last evaluation.
        evaluated = [record['step'] for record in run.val]
        first = min([run.train[0].get('epoch', 1), *evaluated])
        train = [r for r in train if r['step'] <= run.begin] + run.train
        val = [r for r in val if r['step'] < first] + run.val
        chain.append(run)
    return train, val, chain


def read_scalars(work_dir: str | Path) -> tuple[list[dict], list[dict]]:
    """Records of training and evaluation of all runs in a work directory.

    Raises:
        InputError: There is no log of a training, or it is broken.
    """
    train, val, _ = join(read_runs(work_dir))
    if not train:
        raise InputError(f'{work_dir} holds no log of a training.')
    return train, val


def _read(file: Path) -> Run:
    run = Run(file.parents[1])
    # Not splitlines, which also splits inside of strings. A crash of the
    # machine may leave zeros at the end.
    lines = file.read_text(errors='replace').rstrip('\0\n').split('\n')
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step = int(record['step'])
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            if number == len(lines):
                run.cut = bool(line)
                break
            raise InputError(
                f'{file}, line {number}: not a record of mmengine '
                f'({line[:40]!r}); only the last line may be cut off. '
                'Delete that line, or leave this folder out.'
            ) from error
        if 'loss' in record:
            run.train.append(record)
        elif step > 0:  # evaluated in a training
            run.val.append(record)
    run.read_text()
    return run
