"""Take the disk, the port and the work directory from a training."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs import Job, free_port, run_all, until
from kills import GONE, START
from lab import LAST, Lab, Try, newest, refused

# torchrun ends so whenever a process that it started does not end well.
TORCHRUN = re.compile(
    r'Traceback \(most recent call last\):\n(?:(?!Traceback).)*?'
    r'ChildFailedError',
    re.DOTALL,
)


class NotHereError(Exception):
    """Only root can mount and cut, and not in every container."""


def run(*command) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotHereError(
            f'{" ".join(map(str, command))}: {done.stderr.strip()}'
        )


@contextmanager
def mounted(folder: Path, *how) -> Iterator[Path]:
    folder.mkdir()
    run('mount', *how, folder)
    try:
        yield folder
    finally:
        run('umount', '--lazy', folder)


def unnamed(output: str) -> bool:
    return 'Traceback' in TORCHRUN.sub('', output)


def full_disk(lab: Lab) -> Iterator[Try]:
    """A disk that has room for one checkpoint, and one that has none."""
    size = lab.checkpoint.stat().st_size
    room = ('-t', 'tmpfs', '-o', f'size={3 * size}', 'tmpfs')
    found = Try('it fills up after the first checkpoint')
    try:
        with mounted(lab.new('disk'), *room) as disk:
            work = disk / 'work'
            job = lab.train(work)
            until(lambda: job.over or (work / 'epoch_1.pth').exists(), START)
            with (disk / 'fill').open('wb', buffering=0) as file:
                # Whatever is freed is taken, but for the room of a log.
                while not job.over:
                    if shutil.disk_usage(disk).free > 1 << 21:
                        file.write(bytes(1 << 20))
                    else:
                        time.sleep(0.001)
            if not job.gone(GONE):
                found.fail('hung', job.output)
            if not job.process.returncode:
                found.fail('lost', 'it ends as if nothing had happened')
            iteration, weights, _ = newest(work)
            if weights != lab.reference.get(iteration):
                found.fail('lost', f'{[*work.iterdir()]}: {job.output}')
            if unnamed(job.output) or 'No space left' not in job.output:
                found.fail('unnamed', job.output)
            (disk / 'fill').unlink()
            job = lab.train(work, '--resume')
            job.wait(START)
            if newest(work)[:2] != (LAST, lab.reference[LAST]):
                found.fail('lost', f'after making room: {job.output}')
            job.gone(GONE)
    except NotHereError as error:
        found.fail('skipped', str(error))
    yield found
    found = Try('no room at all')
    try:
        with mounted(
            lab.new('disk'), '-t', 'tmpfs', '-o', 'size=8k', 'tmpfs'
        ) as disk:
            (disk / 'fill').write_bytes(bytes(4096))
            yield from into(lab, disk, 'a full disk')
    except NotHereError as error:
        found.fail('skipped', str(error))
        yield found


def read_only(lab: Lab) -> Iterator[Try]:
    """Folders that cannot be written to."""
    work = lab.copy('read_only')
    try:
        with mounted(lab.new('bound'), '-o', 'bind', work) as folder:
            run('mount', '-o', 'remount,ro,bind', folder)
            yield from into(lab, folder, 'a read-only folder')
    except NotHereError as error:
        yield Try('read-only', 'skipped', str(error))


def into(lab: Lab, folder: Path, what: str) -> Iterator[Try]:
    """Every command that writes, into a folder that takes nothing."""
    config, *options = lab.arguments(folder / 'new')
    image = next((lab.data / 'val').glob('*.png'))
    resume = lab.arguments(folder)
    commands = {
        'train.py': ('tools/train.py', config, *options),
        'train.py --resume': ('tools/train.py', *resume, '--resume'),
        'test.py': ('tools/test.py', config, lab.checkpoint, *options),
        'predict.py': (
            *('tools/predict.py', config, lab.checkpoint, image),
            *('--out-dir', folder / 'out', '--device', 'cpu'),
        ),
        'make_shapes.py': (
            'tools/dataset_converters/make_shapes.py',
            folder / 'shapes',
        ),
        'publish_model.py': (
            'tools/model_converters/publish_model.py',
            *(lab.checkpoint, folder / 'published.pth'),
        ),
        'export.py': (
            *('tools/deployment/export.py', config, lab.checkpoint),
            *(folder / 'detector.onnx', '--size', '96', '96'),
        ),
        'compare_results.py': (
            'tools/analysis_tools/compare_results.py',
            *(lab.undisturbed, '--json', folder / 'results.json'),
        ),
    }
    for tool, ended in run_all(lab.new('logs'), commands.items()):
        found = Try(f'{tool} into {what}')
        yield refused(found, ended, folder, 'No space left')


def collisions(lab: Lab) -> Iterator[Try]:
    """A port that is in use, and a second training in a work directory."""
    found = Try('the port is in use')
    with socket.create_server(('127.0.0.1', int(free_port()))) as server:
        port = str(server.getsockname()[1])
        job = lab.train(lab.new('work'), PORT=port)
        until(lambda: job.over or job.iterations, START)
        if not job.over and not job.iterations:
            found.fail('hung', job.output)
        elif not job.iterations and (
            port not in job.output or unnamed(job.output)
        ):
            found.fail('unnamed', job.output)
        job.gone(0)
    yield found
    found = Try('a second training in the work directory')
    work = lab.new('work')
    first = lab.train(work)
    until(lambda: first.over or first.iterations, START)
    second = lab.train(work, '--resume')
    code = second.wait(START)
    if code is None:
        found.fail('hung', second.output)
    elif not code or second.iterations:
        found.fail('lost', f'two write to one folder: {second.output}')
    elif unnamed(second.output) or str(work) not in second.output:
        found.fail('unnamed', second.output)
    second.gone(GONE)
    first.wait(START)
    first.gone(GONE)
    if newest(work)[:2] != (LAST, lab.reference[LAST]):
        found.fail('lost', f'the first one was disturbed: {first.output}')
    yield found


@contextmanager
def two_machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: their names."""
    names = [f'faults{os.getpid()}{end}' for end in 'ab']
    try:
        for name in names:
            run('ip', 'netns', 'add', name)
            run('ip', '-n', name, 'link', 'set', 'lo', 'up')
        ends = [f'{name[-11:]}v' for name in names]
        run('ip', 'link', 'add', ends[0], 'type', 'veth', 'peer', ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            run('ip', 'link', 'set', end, 'netns', name, 'name', 'cable')
            address = f'10.231.77.{number}/24'
            run('ip', '-n', name, 'address', 'add', address, 'dev', 'cable')
            run('ip', '-n', name, 'link', 'set', 'cable', 'up')
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(
                ['ip', 'netns', 'delete', name],
                capture_output=True,
                check=False,
            )


def cut_network(lab: Lab) -> Iterator[Try]:
    """Two nodes that lose each other, and that carry on later."""
    found = Try('the cable is cut')
    work = lab.new('work')
    seconds = 15

    def start(machines, *more) -> list[Job]:
        config, *options = lab.arguments(work)
        command = ('tools/dist_train.sh', config, 1, *options, *more)
        port = free_port()
        return [
            Job(
                lab.new(f'node{node}.log'),
                *('ip', 'netns', 'exec', machine, *command),
                *('--timeout', seconds / 60),
                NNODES='2',
                NODE_RANK=str(node),
                MASTER_ADDR='10.231.77.1',
                PORT=port,
            )
            for node, machine in enumerate(machines)
        ]

    try:
        with two_machines() as machines:
            jobs = start(machines)
            until(lambda: jobs[0].over or jobs[0].iterations, START)
            cable = ('ip', '-n', machines[0], 'link', 'set', 'cable')
            run(*cable, 'down')
            for node, job in enumerate(jobs):
                code = job.wait(seconds + 2 * GONE)
                lost = f'node {1 - node}'
                if not job.gone(GONE):
                    found.fail('hung', f'node {node}: {job.output}')
                if not code:
                    found.fail('lost', f'node {node} ends well: {job.output}')
                if unnamed(job.output) or lost not in job.output:
                    found.fail('unnamed', f'node {node}: {job.output}')
            run(*cable, 'up')
            jobs = start(machines, '--resume')
            for job in jobs:
                job.wait(START)
                job.gone(GONE)
            if newest(work)[:2] != (LAST, lab.reference[LAST]):
                found.fail('lost', f'resumed: {jobs[0].output}')
    except NotHereError as error:
        found.fail('skipped', str(error))
    yield found
