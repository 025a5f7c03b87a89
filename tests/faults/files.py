"""Give the commands damaged and hostile files."""

import functools
import os
import pickle
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs import run_all
from lab import EPOCHS, LENGTH, Lab, Try, refused, value_of

PAGE = 4096


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer."""

    def stop(*_):
        raise TimeoutError(f'more than {seconds} s')

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def damages(
    data: bytes, rng, flips: int, cuts: int, pages: int
) -> Iterator[tuple[str, bytes]]:
    """Copies of a file with one damage each."""
    for _ in range(flips):
        bit = rng.randrange(len(data) * 8)
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield f'bit {bit} flipped', bytes(changed)
    for _ in range(cuts):
        size = rng.randrange(len(data))
        yield f'cut to {size} bytes', data[:size]
    for _ in range(pages):
        start = rng.randrange(len(data) // PAGE) * PAGE
        changed = bytearray(data)
        changed[start : start + PAGE] = bytes(PAGE)
        # A page of zeros may have been there before.
        if bytes(changed) != data:
            yield f'{PAGE} zeros at {start}', bytes(changed)


def checkpoints(lab: Lab) -> Iterator[Try]:
    """Damaged checkpoints, read in this process and by the commands."""
    from mmdet_attn.errors import InputError
    from mmdet_attn.weights.load import read_checkpoint

    rng = lab.random('checkpoints')
    data = lab.checkpoint.read_bytes()
    whole = value_of(read_checkpoint(str(lab.checkpoint)))
    file = lab.new('damaged.pth')
    numbers = (20, 5, 5) if lab.short else (200, 20, 20)
    for name, damaged in damages(data, rng, *numbers):
        file.write_bytes(damaged)
        found = Try(name)
        try:
            with within(60):
                if value_of(read_checkpoint(str(file))) != whole:
                    found.fail('lost', 'it loads, with other values')
        except InputError as error:
            if file.name not in str(error):
                found.fail('unnamed', str(error))
        except TimeoutError as error:
            found.fail('hung', str(error))
        except Exception as error:
            found.fail('unnamed', f'{type(error).__name__}: {error}')
        yield found
    # Whoever reads: test.py, a start from weights, a resume by name.
    some = list(damages(data, rng, 1, 1, 1))
    commands = []
    for number, (name, damaged) in enumerate(some[:1] if lab.short else some):
        bad = lab.new(f'damaged{number}.pth')
        bad.write_bytes(damaged)
        for tool, command in readers(lab, bad).items():
            commands.append(((Try(f'{name}, {tool}'), bad), command))
    for (found, bad), ended in run_all(lab.new('readers'), commands):
        yield refused(found, ended, bad)


def readers(lab: Lab, file: Path) -> dict[str, tuple]:
    """The ways in which commands read a checkpoint."""
    config = lab.config
    image = next((lab.data / 'val').glob('*.png'))

    def options() -> list:
        return lab.arguments(lab.new('work'))[1:]

    init_cfg = f"dict(_delete_=True, type='Pretrained', checkpoint='{file}')"
    child = lab.new('init_cfg.py')
    child.write_text(
        f"_base_ = '{config}'\n"
        f'model = dict(backbone=dict(init_cfg={init_cfg}))\n'
    )
    return {
        'test.py': ('tools/test.py', config, file, *options()),
        'predict.py': (
            *('tools/predict.py', config, file, image),
            *('--out-dir', lab.new('predicted'), '--device', 'cpu'),
        ),
        'train.py --resume': (
            *('tools/train.py', config, *options(), '--resume', file),
        ),
        'load_from': (
            *('tools/train.py', config, *options()),
            *('--cfg-options', f'load_from={file}'),
        ),
        'init_cfg': ('tools/train.py', child, *options()),
        'publish_model.py': (
            'tools/model_converters/publish_model.py',
            *(file, lab.new('published.pth')),
        ),
        'convert_checkpoint.py': (
            'tools/model_converters/convert_checkpoint.py',
            *('ecanet', file, lab.new('converted.pth')),
        ),
    }


def resumes(lab: Lab) -> Iterator[Try]:
    """`--resume` beside files that are cut, empty, stale or missing."""
    last = f'epoch_{EPOCHS}.pth'

    def damage(kind: int) -> Callable[[Path], None]:
        def change(work: Path) -> None:
            file = work / last
            rng = lab.random(f'resume {kind}')
            numbers = [int(index == kind) for index in range(3)]
            ((_, data),) = damages(file.read_bytes(), rng, *numbers)
            file.write_bytes(data)

        return change

    def moved(work: Path) -> None:
        # The folder from which it was copied has something else by now.
        pointer = lab.checkpoint
        (work / 'last_checkpoint').write_text(str(pointer))
        (work / last).unlink()

    good, bad = EPOCHS, EPOCHS - 1
    cases: dict[str, tuple[Callable[[Path], object], int, str]] = {
        'a flipped bit': (damage(0), bad, last),
        'cut': (damage(1), bad, last),
        'a page of zeros': (damage(2), bad, last),
        'empty': (lambda work: (work / last).write_bytes(b''), bad, last),
        'last_checkpoint missing': (
            lambda work: (work / 'last_checkpoint').unlink(), good, ''
        ),
        'last_checkpoint empty': (
            lambda work: (work / 'last_checkpoint').write_text(''), good, ''
        ),
        'last_checkpoint stale': (
            lambda work: (work / 'last_checkpoint').write_text(
                str(work / f'epoch_{bad}.pth')
            ),
            good,
            '',
        ),
        'last_checkpoint to a deleted file': (
            lambda work: (work / 'last_checkpoint').write_text(
                str(work / 'epoch_77.pth')
            ),
            good,
            '',
        ),
        'a copied folder': (moved, bad, ''),
    }  # fmt: skip
    commands = []
    for name, (change, epoch, named) in cases.items():
        work = lab.copy('resumed')
        change(work)
        more = ('--resume', '--cfg-options', f'train_cfg.max_epochs={EPOCHS}')
        _, *options = lab.arguments(work)
        command = ('tools/train.py', lab.config, *options, *more)
        commands.append(((Try(name), work, epoch, named), command))
    work = lab.copy('damaged')
    for file in work.glob('*.pth'):
        file.write_bytes(file.read_bytes()[:5000])
    _, *options = lab.arguments(work)
    command = ('tools/train.py', lab.config, *options, '--resume')
    commands.append(((Try('all are cut'), work, None, last), command))
    if lab.short:
        commands = commands[1::4]
    for (found, work, epoch, named), ended in run_all(
        lab.new('resumes'), commands
    ):
        if epoch is None:
            yield refused(found, ended, work, named)
            continue
        text = f'iter: {epoch * LENGTH}'
        if ended.code is None:
            found.fail('hung', ended.output)
        elif ended.code or f'resumed epoch: {epoch}, {text}' not in (
            ended.output
        ):
            found.fail('lost', f'not from epoch {epoch}: {ended.output}')
        elif named not in ended.output:
            found.fail('unnamed', f'{named} is not named')
        yield found


class Reduce:
    """Pickled, it is a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stranger:
    """An object of a class that only its author knows."""

    def __init__(self, command):
        self.command = command

    def __setstate__(self, state):
        os.system(state['command'])


def hostile(command: str) -> dict[str, Callable[[Path], object]]:
    """Writers of files that run a command when they are unpickled."""
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    call = Reduce(os.system, command)
    code = f'__import__("os").system({command!r})'

    def saved(content, **how) -> Callable[[Path], object]:
        if not isinstance(content, dict):
            content = dict(state_dict={}, meta=content)
        return lambda file: torch.save(content, file, **how)

    return {
        'among the weights': saved(dict(state_dict=dict(a=call))),
        'in meta': saved(call),
        'eval': saved(Reduce(eval, code)),
        'process': saved(Reduce(subprocess.Popen, [*command.split()])),
        'partial': saved(functools.partial(os.system, command)),
        'getattr': saved(Reduce(getattr, HistoryBuffer, '__init__')),
        'in an array': saved(np.array([call], dtype=object)),
        'own class': saved(Stranger(command)),
        'old format': saved(call, _use_new_zipfile_serialization=False),
        'no torch': lambda file: file.write_bytes(
            pickle.dumps(dict(meta=call))
        ),
    }


def pickles(lab: Lab) -> Iterator[Try]:
    """Files that carry code, read in every way."""
    import torch

    tools = list(readers(lab, lab.checkpoint))
    commands = []

    def attack(kind: str, tool: str, write: Callable, named: bool) -> None:
        file = lab.new('hostile.pth')
        canary = file.with_suffix('.ran')
        write(file, f'touch {canary}')
        key = Try(f'{kind}, {tool}'), canary, file if named else None
        commands.append((key, readers(lab, file)[tool]))

    for kind in hostile(''):
        for tool in tools[:1] if lab.short else tools:
            attack(
                *(kind, tool),
                lambda file, do, kind=kind: hostile(do)[kind](file),
                True,
            )
    # A good checkpoint with code where mmengine executes a text.
    content = torch.load(lab.checkpoint, weights_only=False)

    def in_meta(file: Path, do: str) -> None:
        content['meta']['config'] = f'__import__("os").system({do!r})\n'
        torch.save(content, file)

    for tool in ['train.py --resume'] if lab.short else tools:
        attack("meta['config']", tool, in_meta, False)
    # A work directory that somebody else sends.
    work = lab.copy('sent')
    canary = work.with_suffix('.ran')
    (work / 'facts.json').unlink(missing_ok=True)  # or no config is read
    for config in work.glob('*/vis_data/config.py'):
        code = f'__import__("os").system("touch {canary}")\n'
        config.write_text(config.read_text() + code)
    command = ('tools/analysis_tools/compare_results.py', work)
    commands.append(((Try('a work directory'), canary, None), command))
    for (found, canary, file), ended in run_all(lab.new('logs'), commands):
        if canary.exists():
            found.fail('executed', ended.output)
        if file:
            refused(found, ended, file)
        elif ended.code is None:
            found.fail('hung', ended.output)
        elif 'Traceback' in ended.output:
            found.fail('unnamed', ended.output)
        yield found
