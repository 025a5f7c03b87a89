"""Checkpoints that survive a kill or a full disk, and the newest of them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine import hooks
from mmengine.config import Config
from mmengine.dist import all_gather_object, is_main_process, master_only
from mmengine.fileio import (
    HardDiskBackend,
    LocalBackend,
    get_file_backend,
    register_backend,
)
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from mmdet_attn.errors import InputError
from mmdet_attn.weights.load import (
    read_ahead,
    read_checkpoint,
    refuse_not_finite,
)
from mmdet_attn.weights.save import (
    check_folder,
    remove_parts,
    write_bytes,
    write_checkpoint,
)

SUFFIXES = ('.pth', '.pt', '.ckpt')
# In mmengine's message hub, and so in checkpoints: the name of the one that
# `save_now` wrote and that the next regular one replaces.
WITHIN_EPOCH = 'checkpoint_within_epoch'


class SafeLocalBackend(LocalBackend):
    """Local files that are written in one step and removed when told so."""

    def __init__(self) -> None:
        self.outdated: list[str] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        self.outdated.append(str(filepath))

    rmtree = remove

    def remove_outdated(self) -> None:
        """Remove what `remove` was asked to."""
        while self.outdated:
            path = self.outdated.pop()
            if self.isdir(path):  # of DeepSpeed
                super().rmtree(path)
            elif self.isfile(path):
                super().remove(path)


register_backend('mmdet_attn', SafeLocalBackend, force=True)


class CheckpointHook(hooks.CheckpointHook):
    """mmengine's, with one complete checkpoint on disk at any time.

    A checkpoint gets its name once it is complete and on disk. Then
    `last_checkpoint` names it. Then the outdated ones are removed. mmengine
    removes first and writes in place. Other storage than local disks is left
    to mmengine.

    Hooks may have a method `before_saving(runner)`. All processes call it.

    Takes mmengine's arguments.
    """

    file_backend: Any
    best_ckpt_path: Any

    def before_train(self, runner: Any) -> None:
        starts = all_gather_object(runner.iter)
        if len(set(starts)) > 1:
            raise InputError(
                'the processes start at different iterations '
                f'({", ".join(map(str, starts))}): the work directory must be '
                'one folder that all nodes see.'
            )
        super().before_train(runner)
        if type(self.file_backend) not in (LocalBackend, HardDiskBackend):
            return
        self.file_client_args = None
        self.backend_args = {'backend': 'mmdet_attn'}
        self.file_backend = get_file_backend(backend_args=self.backend_args)
        # A copied work directory must not touch the files of the original.
        if getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = self._here(self.best_ckpt_path)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[key] = path and self._here(path)
        # mmengine forgets it, and then does not store the best score there.
        last = runner.message_hub.runtime_info.get('last_ckpt')
        if last and Path(self._here(last)).exists():
            self.last_ckpt = self._here(last)
        if is_main_process():
            for folder in {self.out_dir, runner.work_dir}:
                remove_parts(folder)

    def _here(self, path: str) -> str:
        name = Path(path).name
        return self.file_backend.join_path(self.out_dir, name)

    def save_now(self, runner: Any, validating: bool = False) -> None:
        """Save what `--resume` needs: see the function of this name."""
        done = runner.iter + (not validating)
        name = f'iter_{done}.pth'
        same = [name]
        if validating and self.by_epoch:
            same.append(self.filename_tmpl.format(runner.epoch))
        if self.last_ckpt and Path(self.last_ckpt).name in same:
            return  # it was saved a moment ago
        if not validating:
            runner.call_hook('before_saving')
        meta = dict(epoch=runner.epoch, iter=done)
        self._save(runner, name, meta, within_epoch=name)

    def _save_checkpoint_with_step(
        self, runner: Any, step: int, meta: dict
    ) -> None:
        runner.call_hook('before_saving')
        if not isinstance(self.file_backend, SafeLocalBackend):
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                oldest = self.filename_tmpl.format(self.keep_ckpt_ids[0])
                self.file_backend.remove(Path(self.out_dir, oldest))
            self.keep_ckpt_ids.append(step)  # the oldest drops out
            runner.message_hub.update_info(
                'keep_ckpt_ids', list(self.keep_ckpt_ids)
            )
        self._save(runner, self.filename_tmpl.format(step), meta)

    def _save(
        self,
        runner: Any,
        name: str,
        meta: dict,
        within_epoch: str | None = None,
    ) -> None:
        """Save, let `last_checkpoint` name it, remove what it replaces."""
        hub = runner.message_hub
        replaced = hub.runtime_info.get(WITHIN_EPOCH)
        if replaced not in (None, name):
            self.file_backend.remove(Path(self.out_dir, replaced))
        hub.update_info(WITHIN_EPOCH, within_epoch)
        self.last_ckpt = self._here(name)
        hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_bytes(
                Path(runner.work_dir, 'last_checkpoint'),
                self.last_ckpt.encode(),
            )
            self.file_backend.remove_outdated()

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        if not self.save_best:
            return
        runner.call_hook('before_saving')
        super()._save_best_checkpoint(runner, metrics)
        if isinstance(self.file_backend, SafeLocalBackend):
            self.file_backend.remove_outdated()

    @master_only
    def _publish_model(self, runner: Any, ckpt_path: str) -> None:
        if not isinstance(self.file_backend, SafeLocalBackend):
            super()._publish_model(runner, ckpt_path)
            return
        content = read_checkpoint(ckpt_path)
        kept = {k: v for k, v in content.items() if k in self.published_keys}
        file = write_checkpoint(kept, ckpt_path, name_by_hash=True)
        runner.logger.info(f'{ckpt_path} is published as {file}.')


def save_safely(cfg: Config) -> Path:
    """Use our hook instead of mmengine's in a config of a training.

    Returns:
        The folder that gets the checkpoints.

    Raises:
        InputError: It cannot be written.
    """
    if 'default_hooks' not in cfg:
        cfg.default_hooks = {}
    if 'checkpoint' not in cfg.default_hooks:
        mmengines = dict(type='CheckpointHook', interval=1)
        cfg.default_hooks.checkpoint = mmengines
    first = cfg.default_hooks.checkpoint
    for hook in (first, *(cfg.get('custom_hooks') or ())):
        if isinstance(hook, dict) and _is_mmengines(hook['type']):
            hook['type'] = 'mmdet_attn.CheckpointHook'
    folder = Path(cfg.work_dir)
    check_folder(folder)
    out_dir = first and first.get('out_dir')
    if out_dir and out_dir != cfg.work_dir and '://' not in str(out_dir):
        folder = Path(out_dir, folder.name)
        check_folder(folder)
    return folder


def use_resume(
    cfg: Config, resume: str | None, folder: Path, allow_nan: bool = False
) -> None:
    """Let a config carry on from a checkpoint, which is read here.

    Args:
        cfg: The config of a training; its own `resume` counts too.
        resume: A checkpoint, `'auto'` for the newest, None for none.
        folder: Where the checkpoints of the training are.
        allow_nan: As of `newest_checkpoint`.

    Raises:
        InputError: The checkpoint cannot be read, or no one can be resumed.
    """
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    if resume is None:
        if old := next(folder.glob('*.pth'), None):
            print_log(
                f'{folder} has checkpoints of another training ({old.name}), '
                'which this one overwrites; --resume carries on.',
                'current',
                logging.WARNING,
            )
        return
    if resume == 'auto':
        place = (cfg.default_hooks.get('checkpoint') or {}).get('out_dir')
        if '://' in str(place):
            raise InputError(
                f'--resume looks in folders, not in {place}: download the '
                'newest checkpoint, and give it by --resume FILE.'
            )
        newest = newest_checkpoint(folder, allow_nan)
        resume = str(newest) if newest else None
    else:
        read_ahead(resume)
    cfg.resume = resume is not None
    if resume:
        cfg.load_from = resume
    else:
        print_log(f'{folder} has no checkpoint yet: the training starts.')


def _is_mmengines(kind: str | type) -> bool:
    if isinstance(kind, str):
        kind = HOOKS.get(kind)
    return kind is hooks.CheckpointHook


def save_now(runner: Any, validating: bool = False) -> str | None:
    """Save a checkpoint that `--resume` carries on from, within an epoch.

    The next checkpoint replaces it.

    Args:
        runner: mmengine's, with our `CheckpointHook`, after an iteration: a
            hook's `after_train_iter` calls this, in all processes.
        validating: Whether a hook's `after_val_iter` calls this instead, in
            any process.

    Returns:
        The checkpoint; None if the training has no such hook.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            hook.save_now(runner, validating)
            return hook.last_ckpt
    return None


def newest_checkpoint(
    work_dir: str | Path, allow_nan: bool = False
) -> Path | None:
    """The newest complete checkpoint in a folder, to carry on from.

    What `last_checkpoint` says does not matter. Damaged files are skipped
    with a warning, weights without an optimizer (best, published) in
    silence. The result is kept for mmengine, as by `read_ahead`.

    Args:
        work_dir: The folder with the checkpoints of a training.
        allow_nan: Whether weights may be NaN or infinite.

    Raises:
        InputError: There are checkpoints, and none can be resumed.
    """
    files = [f for f in Path(work_dir).glob('*') if f.suffix in SUFFIXES]
    found, newest = [], None
    for file in files:
        with _or_warn():
            content = read_checkpoint(str(file), only_structure=True)
            meta = content.get('meta') or {}
            if 'optimizer' in content and 'iter' in meta:
                found.append((meta['iter'], meta['epoch'], file))
    for *_, file in sorted(found, reverse=True):
        with _or_warn():
            content = read_ahead(str(file))
            if not allow_nan:
                refuse_not_finite(str(file), content)
            newest = file
            break
    if files and newest is None:
        raise InputError(
            f'--resume: none of {len(files)} checkpoint(s) in {work_dir} can '
            'be resumed: they are damaged, or hold weights only. Move them '
            'away to start afresh, or give a checkpoint: --resume FILE.'
        )
    return newest


@contextmanager
def _or_warn() -> Iterator[None]:
    """Show an InputError as a warning."""
    try:
        yield
    except InputError as error:
        print_log(f'Skipped: {error}', 'current', logging.WARNING)
