"""Several processes and nodes: what ends, what is refused, what is named."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import DEMO, ROOT, quick_options, user_error

from mmdet_attn import launch
from mmdet_attn.errors import InputError
from mmdet_attn.study.execute import free_port
from mmdet_attn.training import alone, torchrun
from mmdet_attn.training.nodes import interface_to

slow = pytest.mark.slow
LOCK = (
    'import signal\nfrom mmdet_attn.training.alone import lock\n'
    'lock({!r}, "none"); signal.pause()'
)


def until(condition, seconds=180):
    """Wait for a condition, and return whether it came true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def processes(word) -> dict[int, str]:
    """The running processes with a word in their command line."""
    found = {}
    for file in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            command = file.read_text()
        except OSError:
            continue
        if str(word) in command:
            found[int(file.parent.name)] = command
    return found


@pytest.fixture
def start(tmp_path):
    """Start a command of the clone; its output is in the file `log`."""
    started = []
    # Nodes meet at the same port.
    port = str(free_port())

    def start(*command, log='log', **env):
        with open(tmp_path / log, 'w') as file:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env={
                    **os.environ,
                    'PATH': f'{Path(sys.executable).parent}:'
                    + os.environ['PATH'],
                    'PYTHONPATH': str(ROOT),
                    'OMP_NUM_THREADS': '1',
                    'PORT': port,
                    **env,
                },
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for pid in processes(tmp_path):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ('gpus', 'env', 'expected'),
    [
        ('two', {}, "GPUS must be a whole number .*, got 'two'"),
        ('0', {}, "GPUS must be .*, got '0'"),
        ('1', {'NNODES': 'x'}, "NNODES must be .*, got 'x'"),
        ('1', {'NNODES': '2'}, 'needs MASTER_ADDR'),
        ('1', {'NODE_RANK': '1'}, "NODE_RANK must be .* to 0, got '1'"),
        ('1', {'PORT': '99999'}, "PORT must be .* 65535, got '99999'"),
        ('1', {'MAX_RESTARTS': '-1'}, "MAX_RESTARTS must be .*, got '-1'"),
        ('1', {'NNODES': '2', 'MASTER_ADDR': 'x.invalid'}, 'x.invalid is not'),
        ('1', {'NNODES': '2', 'MASTER_ADDR': '127.0.0.1'}, 'this machine o'),
    ],
)
def test_bad_variables(monkeypatch, gpus, env, expected):
    if 'MASTER_ADDR' in env:
        monkeypatch.setenv('NODE_RANK', '1')
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=expected):
        torchrun.run(gpus, ['train.py'])


def test_port_in_use(monkeypatch):
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv('PORT', str(port))
        with pytest.raises(InputError, match=rf'PORT {port} .*in use.*PORT='):
            torchrun.run('1', ['train.py'])


def test_scripts_show_one_line(tmp_path):
    command = ['tools/dist_train.sh', DEMO, 'two']
    error = user_error(*command)
    assert error.startswith('dist_train.sh: error: GPUS must be')
    assert error.count('\n') == 1
    for name in ('bash', 'env', 'dirname'):
        (tmp_path / name).symlink_to(f'/usr/bin/{name}')
    error = subprocess.run(
        [ROOT / command[0], *command[1:]],
        env={'PATH': str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert error.returncode == 2
    assert error.stderr.count('\n') == 1
    assert 'no python with torch in PATH' in error.stderr


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_script_ends_by_an_early_interrupt(script, tmp_path):
    """Also by one that only bash gets, while it waits for python."""
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\nsleep 1\n')
    python.chmod(0o755)
    with subprocess.Popen(
        [ROOT / 'tools' / script, 'config', '1', '1'],
        env=os.environ | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
    ) as process:
        assert until((tmp_path / 'started').exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_interface_of_an_address():
    assert interface_to('127.0.0.1') == 'lo'
    assert interface_to('host.invalid') is None


def test_chosen_interface_stays(monkeypatch):
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    launch.choose_interface()
    assert os.environ['GLOO_SOCKET_IFNAME'] == 'lo'
    assert 'NCCL_SOCKET_IFNAME' not in os.environ
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'eth7')
    launch.choose_interface()
    assert os.environ['GLOO_SOCKET_IFNAME'] == 'eth7'


def test_lock(tmp_path, start):
    first = start(sys.executable, '-c', LOCK.format(str(tmp_path)))
    file = tmp_path / 'lock'
    assert until(lambda: file.exists() and file.read_text())
    expected = rf'another .*\({socket.gethostname()}, process {first.pid}, si'
    with pytest.raises(InputError, match=expected):
        alone.lock(str(tmp_path), 'none')
    monitored = file.read_text()
    os.environ['RANK'] = '1'  # only the first process locks
    alone.lock(str(tmp_path), 'pytorch')
    first.kill()
    first.wait()
    alone.lock(str(tmp_path), 'none')
    assert file.read_text() != monitored
    assert f'process {os.getpid()}' in file.read_text()


def test_no_lock_is_no_error(tmp_path, monkeypatch, caplog):
    def lockf(*args):
        raise OSError(errno.ENOLCK, 'No locks available')

    said = []
    monkeypatch.setattr(fcntl, 'lockf', lockf)
    monkeypatch.setattr(alone, 'print_log', lambda *args: said.append(args))
    alone.lock(str(tmp_path), 'none')
    assert 'No locks available' in said[0][0]


def test_work_dir_that_cannot_be(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='work cannot be written: Not a dir'):
        alone.lock(str(tmp_path / 'file/work'), 'none')


def test_process_without_its_launcher_ends():
    command = 'from mmdet_attn.training.alone import *; end_with_parent()'
    done = subprocess.run(
        [sys.executable, '-c', command],
        cwd=ROOT,
        env=os.environ | {alone.LAUNCHER: '1'},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def test_resume_after_a_restart(tmp_path, monkeypatch):
    resume = launch.resume_at_start
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '1')
    assert resume(None, tmp_path) is None
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    assert resume(None, tmp_path) is None
    assert resume('a.pth', tmp_path) == 'a.pth'
    (tmp_path / 'epoch_1.pth').touch()
    assert resume(None, tmp_path) == 'auto'
    assert resume('a.pth', tmp_path) == 'auto'
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '0')
    assert resume('auto', tmp_path) == 'auto'
    with pytest.raises(InputError, match='of an earlier training'):
        resume(None, tmp_path)
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '0')
    assert resume(None, tmp_path) is None


@slow
def test_killed_script_leaves_nothing(tmp_path, shapes, start):
    """And while it runs, a second training is refused."""
    work = tmp_path / 'work'
    options = quick_options(shapes, work)
    options += [
        'train_cfg.max_epochs=1000',
        'train_dataloader.num_workers=1',
        'train_dataloader.persistent_workers=True',
    ]
    command = ['tools/dist_train.sh', DEMO, 2, *options]
    script = start(*command)
    log = tmp_path / 'log'
    assert until(lambda: '[2][1/1]' in log.read_text()), log.read_text()
    # The launcher, two processes, and for each one that loads images.
    assert len(processes(work)) == 5, processes(work)

    before = sorted(work.glob('*/*.log'))
    second = start(*command, log='second', PORT=str(free_port()))
    assert second.wait(180) == 2
    output = (tmp_path / 'second').read_text()
    assert 'Traceback' not in output
    last = output.splitlines()[-1]
    assert last.startswith('train.py: error:')
    assert f'{work} belongs to another training' in last
    assert socket.gethostname() in last
    assert sorted(work.glob('*/*.log')) == before

    script.kill()
    assert until(lambda: not processes(work), 30), processes(work)


@slow
def test_died_worker_resumes(tmp_path, shapes, start):
    work = tmp_path / 'work'
    options = [*quick_options(shapes, work), 'train_cfg.max_epochs=3']
    script = start('tools/dist_train.sh', DEMO, 2, *options, MAX_RESTARTS='2')
    assert until((work / 'epoch_1.pth').exists)
    pid = next(p for p, c in processes(work).items() if 'torchrun' not in c)
    os.kill(pid, signal.SIGKILL)
    assert script.wait(180) == 0
    log = (tmp_path / 'log').read_text()
    assert re.search(
        r'dist_train.sh: process \d ended by SIGKILL; re.* 1 of', log
    )
    assert re.search('resumed epoch: [12]', log)
    assert (work / 'epoch_3.pth').exists()


@slow
@pytest.mark.parametrize(('code', 'starts'), [(1, 3), (2, 1), (143, 1)])
def test_what_is_started_again(tmp_path, start, code, starts):
    """Neither bad input nor a training that was told to stop."""
    script = tmp_path / 'script.py'
    script.write_text(f'import sys; print("start"); sys.exit({code})')
    launcher = [sys.executable, '-m', 'mmdet_attn.training.torchrun']
    done = start(*launcher, 'dist_train.sh', 1, script, MAX_RESTARTS='2')
    assert done.wait(180) == code
    log = (tmp_path / 'log').read_text()
    assert log.count('start\n') == starts
    assert ('ended with exit code 1; restart 2 of 2' in log) == (code == 1)


@slow
@pytest.mark.parametrize('rank', [0, 1])
def test_bad_input_is_shown_once(tmp_path, start, rank):
    """By whichever process finds it, and first."""
    script = tmp_path / 'script.py'
    script.write_text(
        'import os, time\n'
        'from mmdet_attn.errors import InputError, user_errors\n'
        'own = int(os.environ["RANK"])\n'
        'with user_errors():\n'
        '    if own == 1:\n'
        '        raise InputError("bad input")\n'
        f'    time.sleep({1 if rank == 0 else 99})\n'
        '    raise InputError("bad input")\n'
    )
    launcher = [sys.executable, '-m', 'mmdet_attn.training.torchrun']
    assert start(*launcher, 'x', 2, script).wait(180) == 2
    lines = (tmp_path / 'log').read_text().splitlines()
    assert lines == ['script.py: error: bad input']


TINY = """
import sys, time, torch
from mmengine.config import Config
from mmdet_attn.launch import leave_group, prepare_launch
from mmdet_attn.training.alone import end_with_parent
end_with_parent()
prepare_launch(Config({}), 'pytorch', 0.2)
for step in range(int(sys.argv[1])):
    torch.distributed.all_reduce(torch.ones(1))
    print('step', step, flush=True)
    time.sleep(0.5)
leave_group()
"""


@pytest.fixture
def two_nodes(tmp_path, start):
    """Start a script on two nodes that know their host name as 127.0.0.1."""
    names = [f'mmdet-attn-{os.getpid()}-{node}' for node in (0, 1)]
    hosts = [Path('/etc/netns', name, 'hosts') for name in names]

    def ip(*words, check=True):
        subprocess.run(['ip', *words], check=check, capture_output=True)

    try:
        for name in names:
            ip('netns', 'add', name)
        veth = [part for n in names for part in ('veth0', 'netns', n)]
        ip('link', 'add', *veth[:3], 'type', 'veth', 'peer', *veth[3:])
        for node, (name, file) in enumerate(zip(names, hosts, strict=True)):
            address = f'10.77.0.{node + 1}/24'
            ip('-n', name, 'address', 'add', address, 'dev', 'veth0')
            ip('-n', name, 'link', 'set', 'veth0', 'up')
            ip('-n', name, 'link', 'set', 'lo', 'up')
            file.parent.mkdir(parents=True)
            file.write_text(f'127.0.0.1 localhost {socket.gethostname()}\n')
    except (OSError, subprocess.CalledProcessError) as error:
        for name in names:
            ip('netns', 'delete', name, check=False)
        pytest.skip(f'network namespaces are needed: {error}')
    (tmp_path / 'tiny.py').write_text(TINY)

    def on(node, steps, minutes=0.15):
        return start(
            *('ip', 'netns', 'exec', names[node], sys.executable, '-m'),
            *('mmdet_attn.training.torchrun', 'dist_train.sh', 1),
            *(tmp_path / 'tiny.py', steps, '--timeout', minutes),
            log=str(node),
            NNODES='2',
            NODE_RANK=str(node),
            MASTER_ADDR='10.77.0.1',
        )

    on.cut = lambda: ip('-n', names[0], 'link', 'set', 'veth0', 'down')
    yield on
    for name, file in zip(names, hosts, strict=True):
        ip('netns', 'delete', name, check=False)
        file.unlink()
        file.parent.rmdir()


def logs(folder):
    return [(folder / name).read_text() for name in '01']


@slow
def test_nodes_meet(two_nodes, tmp_path):
    nodes = [two_nodes(node, 3) for node in (0, 1)]
    codes = [node.wait(180) for node in nodes]
    assert codes == [0, 0], logs(tmp_path)


@slow
def test_cut_link_ends_both_nodes(two_nodes, tmp_path):
    nodes = [two_nodes(node, 1000) for node in (0, 1)]
    assert until(lambda: 'step 2' in logs(tmp_path)[1]), logs(tmp_path)
    two_nodes.cut()
    assert [node.wait(40) for node in nodes] == [1, 1]
    for node, log in enumerate(logs(tmp_path)):
        assert f'dist_train.sh: node {1 - node} (' in log
        assert 'is silent for' in log
    assert not processes(tmp_path / 'tiny.py')


@slow
@pytest.mark.parametrize('node', [0, 1])
def test_node_that_waits_in_vain(two_nodes, tmp_path, node):
    alone_ = two_nodes(node, 1, minutes=0.05)
    assert alone_.wait(180) == 2
    log = (tmp_path / str(node)).read_text()
    last = log.strip().splitlines()[-1]
    assert last.startswith(f'dist_train.sh: error: node {1 - node} did not')


GROUP = """
import sys, torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import InstanceData
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmdet_attn.config_files import find_config, load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.launch import leave_group, prepare_launch
from mmdet_attn.training.alone import end_with_parent
from mmdet_attn.weights.load import read_checkpoint
end_with_parent()
register_all_modules()
prepare_launch(Config({}), 'pytorch', 1)
rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()

try:
    read_checkpoint('http://127.0.0.1:9/x.pth')
except InputError as error:
    print('no download', rank, flush=True)
torch.distributed.barrier()

def sample(count):
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=generator).double() * 60
    size = torch.rand(count, 2, generator=generator).double() * 40 + 20
    shape = dict.fromkeys(('img_shape', 'pad_shape', 'batch_input_shape'),
                          (128, 128))
    sample = DetDataSample(metainfo=dict(shape, scale_factor=(1, 1)))
    sample.gt_instances = InstanceData(
        bboxes=torch.cat([corner, corner + size], 1),
        labels=torch.arange(count) % 3)
    return sample

def gradients(name, counts):
    config = load_config_file(find_config(name))
    config.model.backbone = dict(
        type='mmdet_attn.AttentionResNet', depth=18, norm_eval=True,
        plugins=[dict(cfg=dict(type='mmdet_attn.ECA'),
                      stages=(True,) * 4, position='after_conv2')])
    config.model.neck.in_channels = [64, 128, 256, 512]
    config.model.data_preprocessor = None
    torch.manual_seed(0)
    model = MODELS.build(config.model).double().train()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 128, 128, generator=generator).double()
    samples = [sample(count) for count in counts]
    part = slice(rank * 4 // world, (rank + 1) * 4 // world)
    parallel = MMDistributedDataParallel(
        model, device_ids=None, broadcast_buffers=False,
        find_unused_parameters=True)
    losses = parallel(images[part], samples[part], mode='loss')
    model.parse_losses(losses)[0].backward()
    return {name: parameter.grad for name, parameter
            in model.named_parameters() if parameter.grad is not None}

FCOS = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
RETINANET = 'mmdet_attn::retinanet_r50_eca.py'
found = [gradients(FCOS, [1, 2, 3, 4]), gradients(RETINANET, [1, 2, 1, 2]),
         gradients(RETINANET, [1, 2, 3, 4])]
if rank == 0:
    torch.save(found, sys.argv[1])
leave_group()
"""


@slow
def test_gradients_of_two_processes(tmp_path, start):
    """Those of one with the whole batch, where the losses allow it.

    FCOS divides its losses by what all processes count, RetinaNet by the
    anchors that each process has.
    """
    script = tmp_path / 'group.py'
    script.write_text(GROUP)
    launcher = [sys.executable, '-m', 'mmdet_attn.training.torchrun']
    found = []
    for count in (1, 2):
        out = tmp_path / f'{count}.pt'
        done = start(*launcher, 'group', count, script, out)
        assert done.wait(180) == 0, (tmp_path / 'log').read_text()[-3000:]
        found.append(torch.load(out))
    assert (tmp_path / 'log').read_text().count('no download') == 2
    agree = [
        all(
            torch.allclose(two[name], one[name], rtol=1e-6, atol=1e-9)
            for name in one
        )
        for one, two in zip(*found, strict=True)
    ]
    assert agree == [True, True, False]
