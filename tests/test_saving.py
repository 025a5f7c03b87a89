"""Checkpoints survive whatever happens while they are written."""

import builtins
import errno
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import DEMO, load_config, user_error
from mmengine.config import Config
from mmengine.hooks import CheckpointHook as Mmengines
from tiny_training import At, Scores, loader, make_runner, resumed, saved

from mmdet_attn.config_files import CONFIGS
from mmdet_attn.errors import InputError, user_errors
from mmdet_attn.training.checkpoints import (
    newest_checkpoint,
    save_now,
    save_safely,
    use_resume,
)
from mmdet_attn.weights.load import read_checkpoint
from mmdet_attn.weights.save import write_bytes

ONE = {'max_keep_ckpts': 1}


@pytest.fixture(scope='module')
def work(tmp_path_factory) -> Path:
    """Two epochs, all checkpoints kept. Shared: copy it before a change."""
    folder = tmp_path_factory.mktemp('tiny') / 'work'
    make_runner(folder).train()
    return folder


@pytest.fixture
def copied(work, tmp_path) -> Path:
    return Path(shutil.copytree(work, tmp_path / 'work'))


def failing(function, wanted):
    """A function that fails when an argument has `wanted` in it."""

    def call(*args, **options):
        if any(wanted in str(a) for a in args if isinstance(a, (str, Path))):
            raise OSError(errno.ENOSPC, 'No space left on device')
        return function(*args, **options)

    return call


# --- Writing


@pytest.mark.parametrize(
    ('owner', 'name', 'wanted', 'left'),
    [
        # The last is the file that is complete when it happens.
        (builtins, 'open', 'epoch_2.pth', 1),
        (os, 'replace', 'epoch_2.pth', 1),
        (builtins, 'open', 'last_checkpoint', 2),
        (os, 'replace', 'last_checkpoint', 2),
    ],
)
def test_failed_write(tmp_path, owner, name, wanted, left):
    """The old checkpoint stays, nothing half-written does, one line."""
    runner = make_runner(tmp_path, ONE)

    def fail(_):
        broken = failing(getattr(owner, name), wanted)
        patch = mock.patch.object(owner, name, broken)
        patch.start()

    runner.register_hook(At(4, fail))
    try:
        with pytest.raises(InputError, match=wanted) as caught:
            runner.train()
    finally:
        mock.patch.stopall()
    assert 'No space left' in str(caught.value)
    assert {'epoch_1.pth', f'epoch_{left}.pth'} == saved(tmp_path)
    assert newest_checkpoint(tmp_path).name == f'epoch_{left}.pth'


def test_failed_sync(tmp_path):
    file = tmp_path / 'file'
    write_bytes(file, b'old')
    with (
        mock.patch('os.fsync', side_effect=OSError(5, 'I/O error')),
        pytest.raises(InputError, match='I/O error'),
    ):
        write_bytes(file, b'new')
    assert [f.read_bytes() for f in tmp_path.iterdir()] == [b'old']


def train_and_die(folder, owner, name, count):
    """SIGKILL at a call in the second epoch, counted from 1."""
    real, calls = getattr(owner, name), []

    def kill(*args, **options):
        calls.append(args)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    runner = make_runner(folder, ONE)
    runner.register_hook(At(4, lambda _: setattr(owner, name, kill)))
    runner.train()


# A file and its folder reach the disk in turn, then `last_checkpoint`.
@pytest.mark.parametrize(
    ('owner', 'name', 'count', 'left'),
    [
        (torch, 'save', 1, 1),
        (os, 'fsync', 1, 1),
        (os, 'replace', 1, 1),
        (os, 'fsync', 2, 2),
        (os, 'replace', 2, 2),
        (os, 'remove', 1, 2),
    ],
)
def test_killed_while_saving(tmp_path, owner, name, count, left):
    arguments = (tmp_path, owner, name, count)
    fork = multiprocessing.get_context('fork')
    child = fork.Process(target=train_and_die, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    newest = newest_checkpoint(tmp_path)
    assert newest.name == f'epoch_{left}.pth'
    resumed(tmp_path, newest, ONE, epochs=3).train()
    assert 'epoch_3.pth' in saved(tmp_path)
    assert not list(tmp_path.glob('*.part'))


def test_keeps_as_many_as_told(tmp_path):
    make_runner(tmp_path, {'max_keep_ckpts': 2}, epochs=4).train()
    assert saved(tmp_path) == {'epoch_3.pth', 'epoch_4.pth'}
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_4.pth')


def test_by_iteration_elsewhere_under_another_name(tmp_path):
    hook = ONE | {'out_dir': str(tmp_path), 'filename_tmpl': 'step_{}.pth'}
    make_runner(tmp_path / 'run' / 'work', hook, by_epoch=False).train()
    assert saved(tmp_path / 'work') == {'step_6.pth'}
    last = (tmp_path / 'run' / 'work' / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'work' / 'step_6.pth')


def validated(work, scores, hook, make=make_runner, **options):
    """A training with a score after each epoch."""
    runner = make(
        work,
        hook=hook,
        epochs=len(scores),
        val_dataloader=loader([]),
        val_cfg={},
        val_evaluator=Scores(scores),
        **options,
    )
    return runner


def test_best_and_published(tmp_path):
    scores = [{'mAP': 1, 'acc': 3}, {'mAP': 2, 'acc': 2}, {'mAP': 0, 'acc': 1}]
    hook = ONE | {'save_best': ['mAP', 'acc'], 'published_keys': 'state_dict'}
    validated(tmp_path, scores, hook).train()
    published = [n for n in saved(tmp_path) if '-' in n]
    assert len(published) == 3
    for name in published:
        content = torch.load(tmp_path / name, weights_only=True)
        assert content.keys() == {'state_dict'}
    assert {n for n in saved(tmp_path) if '-' not in n} == {
        'best_acc_epoch_1.pth',
        'best_mAP_epoch_2.pth',
        'epoch_3.pth',
    }


def test_best_that_cannot_be_written(tmp_path):
    hook = ONE | {'save_best': 'mAP'}
    runner = validated(tmp_path, [{'mAP': 1}, {'mAP': 2}], hook)
    broken = failing(os.replace, 'best_mAP_epoch_2')
    with (
        mock.patch('os.replace', broken),
        pytest.raises(InputError, match='best_mAP_epoch_2'),
    ):
        runner.train()
    assert 'best_mAP_epoch_1.pth' in saved(tmp_path)


def test_copy_leaves_the_original_alone(tmp_path):
    """The paths in the message hub are those of the original."""
    first, copy = tmp_path / 'first', tmp_path / 'copy'
    hook = ONE | {'save_best': 'mAP'}
    validated(first, [{'mAP': 1}], hook).train()
    shutil.copytree(first, copy)
    before = {f.name: f.stat().st_mtime_ns for f in first.iterdir()}
    newest = newest_checkpoint(copy)
    assert newest.parent == copy
    scores = [{'mAP': 2}, {'mAP': 3}]
    validated(
        copy,
        scores,
        hook,
        lambda *a, epochs, **o: resumed(*a, newest, epochs=3, **o),
    ).train()
    assert before == {f.name: f.stat().st_mtime_ns for f in first.iterdir()}
    assert saved(copy) == {'best_mAP_epoch_3.pth', 'epoch_3.pth'}


def test_within_an_epoch(tmp_path):
    """It is the newest until the epoch's own checkpoint is complete."""
    seen = []

    def look(runner):
        save_now(runner)
        seen.append((saved(tmp_path), newest_checkpoint(tmp_path).name))

    runner = make_runner(tmp_path, ONE, epochs=2)
    runner.register_hook(At(4, look))
    runner.register_hook(At(5, look))
    runner.train()
    assert seen == [
        ({'epoch_1.pth', f'iter_{n}.pth'}, f'iter_{n}.pth') for n in (4, 5)
    ]
    assert saved(tmp_path) == {'epoch_2.pth'}


def test_within_an_epoch_then_resumed(tmp_path):
    def stop(runner):
        save_now(runner)
        raise KeyboardInterrupt

    runner = make_runner(tmp_path, ONE)
    runner.register_hook(At(4, stop))
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    newest = newest_checkpoint(tmp_path)
    meta = read_checkpoint(str(newest))['meta']
    assert (newest.name, meta['epoch'], meta['iter']) == ('iter_4.pth', 1, 4)
    resumed(tmp_path, newest, ONE).train()
    assert saved(tmp_path) == {'epoch_2.pth'}


# --- Finding


def cut(file):
    file.write_bytes(file.read_bytes()[:-300])


def empty(file):
    file.write_bytes(b'')


def corrupt(file):
    """One bit of a weight, which torch loads."""
    content = bytearray(file.read_bytes())
    weight = torch.load(file, weights_only=False)['state_dict']['line.weight']
    content[content.index(weight.numpy().tobytes())] ^= 1
    file.write_bytes(content)


def not_finite(file):
    content = torch.load(file, weights_only=False)
    content['state_dict']['line.weight'][0] = torch.nan
    torch.save(content, file)


@pytest.mark.parametrize('damage', [cut, empty, corrupt, not_finite])
def test_damaged_is_named_and_skipped(copied, damage):
    damage(copied / 'epoch_2.pth')
    with mock.patch('mmdet_attn.training.checkpoints.print_log') as warn:
        assert newest_checkpoint(copied).name == 'epoch_1.pth'
    assert 'epoch_2.pth' in warn.call_args.args[0]


def absent(file):
    file.unlink()


def stale(file):
    file.write_text(str(file.parent / 'epoch_7.pth'))


@pytest.mark.parametrize('change', [absent, empty, stale])
def test_last_checkpoint_does_not_matter(copied, change):
    change(copied / 'last_checkpoint')
    assert newest_checkpoint(copied) == copied / 'epoch_2.pth'


def test_newest_is_by_iteration(copied):
    """Neither by name nor by time; weights alone do not count."""
    os.rename(copied / 'epoch_2.pth', copied / 'a.pth')
    os.utime(copied / 'a.pth', (0, 0))
    weights = {'state_dict': {}, 'meta': {'iter': 9, 'epoch': 9}}
    torch.save(weights, copied / 'best_mAP_epoch_9.pth')
    torch.save({'meta': None, 'optimizer': 1}, copied / 'odd.pth')
    assert newest_checkpoint(copied).name == 'a.pth'


def test_none_of_several_can_be_resumed(copied):
    for file in copied.glob('*.pth'):
        cut(file)
    with pytest.raises(InputError, match=r'none of 2 checkpoint\(s\)'):
        newest_checkpoint(copied)


def test_resume_before_the_first_checkpoint(tmp_path):
    """A requeued job that never saved starts, from its load_from."""
    cfg = Config({'work_dir': str(tmp_path), 'load_from': 'coco.pth'})
    use_resume(cfg, 'auto', save_safely(cfg))
    assert not cfg.resume
    assert cfg.load_from == 'coco.pth'


@pytest.mark.parametrize('resume', ['auto', None])
def test_resume_of_the_config(copied, resume):
    cfg = Config({'work_dir': str(copied), 'resume': True})
    use_resume(cfg, resume, save_safely(cfg))
    assert cfg.resume
    assert cfg.load_from == str(copied / 'epoch_2.pth')


def test_resume_from_other_storage(tmp_path):
    cfg = Config({'work_dir': str(tmp_path)})
    cfg.default_hooks = {'checkpoint': {'out_dir': 's3://bucket'}}
    with pytest.raises(InputError, match='s3://bucket'):
        use_resume(cfg, 'auto', tmp_path)


# --- Reading


def test_every_single_bit_counts(work, tmp_path):
    """Values are equal, or the file is refused in one line."""
    content = (work / 'epoch_2.pth').read_bytes()
    intact = read_checkpoint(str(work / 'epoch_2.pth'))['state_dict']
    weights = [v.numpy().tobytes() for v in intact.values() if v.numel() > 1]
    draw = random.Random(0)
    inside = [
        (content.index(w) + draw.randrange(len(w)), draw.randrange(8))
        for w in draw.choices(weights, k=30)
    ]
    anywhere = [
        (draw.randrange(len(content)), draw.randrange(8)) for _ in range(200)
    ]
    # Headers, where a flip can lead past a check.
    records = [
        (place + offset, bit)
        for mark in (
            b'PK\x03\x04',
            b'PK\x01\x02',
            b'PK\x05\x06',
            b'PK\x06\x06',
        )
        for place in [content.rindex(mark)]
        for offset in range(56)
        for bit in (0, 5)
        if place + offset < len(content)
    ]
    refused = []
    for place, bit in [*inside, *anywhere, *records]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        file = tmp_path / 'flipped.pth'
        file.write_bytes(flipped)
        try:
            found = read_checkpoint(str(file))['state_dict']
        except InputError:
            refused.append((place, bit))
            continue
        assert found.keys() == intact.keys()
        for name, value in found.items():
            assert torch.equal(value, intact[name]), (place, bit, name)
    assert set(inside) <= set(refused)


def test_config_in_a_checkpoint_is_not_run(copied):
    """mmengine runs it to resume; a checkpoint of MMDetection 2 has one."""
    file, mark = copied / 'epoch_1.pth', copied / 'mark'
    content = torch.load(file, weights_only=False)
    code = f'import pathlib\npathlib.Path({str(mark)!r}).touch()\n'
    content['meta']['config'] = code
    torch.save(content, file)
    resumed(copied, file).train()
    assert not mark.exists()


# --- Configs and the command


@pytest.mark.parametrize(
    'file',
    [f for f in CONFIGS.rglob('*.py') if '_base_' not in f.parts],
    ids=lambda f: str(f.relative_to(CONFIGS)),
)
def test_configs_save_safely(file):
    cfg = load_config(file.relative_to(CONFIGS).with_suffix(''))
    assert cfg.default_hooks.checkpoint.type == 'mmdet_attn.CheckpointHook'


def test_hook_of_any_config(tmp_path):
    out = tmp_path / 'elsewhere'
    cfg = Config(
        {
            'work_dir': str(tmp_path / 'work'),
            'default_hooks': {'checkpoint': {'type': 'CheckpointHook'}},
            'custom_hooks': [{'type': Mmengines, 'out_dir': str(out)}],
        }
    )
    assert save_safely(cfg) == tmp_path / 'work'
    ours = 'mmdet_attn.CheckpointHook'
    assert cfg.default_hooks.checkpoint.type == ours
    assert cfg.custom_hooks[0].type == ours
    cfg = Config({'work_dir': str(tmp_path / 'work')})
    save_safely(cfg)
    assert cfg.default_hooks.checkpoint == dict(type=ours, interval=1)
    cfg.default_hooks.checkpoint.out_dir = str(out)
    assert save_safely(cfg) == out / 'work'
    cfg.default_hooks.checkpoint = None
    save_safely(cfg)
    assert cfg.default_hooks.checkpoint is None


def test_full_disk_beside_the_checkpoints(capsys):
    """A log or a result may be what does not fit."""
    with pytest.raises(SystemExit) as caught, user_errors():
        raise OSError(errno.ENOSPC, 'No space left on device', 'a.json')
    assert caught.value.code == 2
    assert 'No space left on device (a.json)' in capsys.readouterr().err
    with pytest.raises(FileNotFoundError), user_errors():
        raise FileNotFoundError(errno.ENOENT, 'no such file')


def test_processes_that_see_different_folders(tmp_path):
    """One would resume, and the other start afresh."""
    runner = make_runner(tmp_path)
    place = 'mmdet_attn.training.checkpoints.all_gather_object'
    with (
        mock.patch(place, return_value=[0, 3]),
        pytest.raises(InputError, match=r'iterations \(0, 3\)'),
    ):
        runner.train()


def test_folder_that_cannot_be_written(tmp_path, shapes):
    file = tmp_path / 'file'
    file.touch()
    options = ['--data-root', shapes, '--work-dir', file / 'work']
    message = user_error('tools/train.py', DEMO, *options)
    assert f'{file / "work"} cannot be written' in message
