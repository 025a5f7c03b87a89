"""Checkpoints: read safely and once, fit or be refused with the cause."""

import functools
import os
import pickle
import re
import subprocess
import sys
import weakref
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import DEMO, load_config, quick_options, run_here
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.weights import load
from mmdet_attn.weights.fit import load_strictly
from mmdet_attn.weights.load import read_ahead, read_checkpoint, state_dict_of
from mmdet_attn.weights.pretrained import AttentionPretrained

RUN = 'touch ran'


class Reduce:
    """Pickled, it is a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stranger:
    """An object of a class that only its author knows."""

    def __init__(self):
        self.a = 1

    def __setstate__(self, state):
        os.system(RUN)


def system():
    return Reduce(os.system, RUN)


# What a file may carry, and how it is written.
PICKLES = {
    'among the weights': lambda: dict(state_dict=dict(a=system())),
    'in meta': lambda: dict(meta=system()),
    'eval': lambda: Reduce(eval, f'__import__("os").system("{RUN}")'),
    'process': lambda: Reduce(subprocess.Popen, RUN.split()),
    'partial': lambda: functools.partial(os.system, RUN),
    'getattr': lambda: Reduce(getattr, HistoryBuffer, '__init__'),
    'in an array': lambda: np.array([system()], dtype=object),
    'own class': Stranger,
    'old format': system,
    'no torch': system,
}


@pytest.fixture(params=PICKLES)
def evil(request, tmp_path, monkeypatch):
    """A file that runs code when it is unpickled, in each of the ways."""
    monkeypatch.chdir(tmp_path)
    content = PICKLES[request.param]()
    if not isinstance(content, dict):
        content = dict(meta=content)
    if request.param == 'no torch':
        (tmp_path / 'evil.pth').write_bytes(pickle.dumps(content))
    else:
        old = request.param == 'old format'
        torch.save(content, 'evil.pth', _use_new_zipfile_serialization=not old)
    return 'evil.pth'


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """What a test lets mmengine do ends with it."""
    monkeypatch.setattr(load, '_trust', None)
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes)
    )


@pytest.fixture
def reads(monkeypatch):
    """What torch reads, a list that grows."""
    found, real = [], torch.load

    def noted(source, *args, **kwargs):
        found.append(str(source))
        return real(source, *args, **kwargs)

    monkeypatch.setattr(torch, 'load', noted)
    return found


def save(path, **more):
    torch.save({'state_dict': {'module.a': torch.ones(2)}, **more}, path)
    return str(path)


def test_reads_what_mmengine_writes(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    file = save(
        tmp_path / 'good.pth',
        message_hub={'log': {'loss': buffer}, 'info': np.float64(3)},
        meta={'classes': ('a', 'b'), 'iter': 3},
    )
    read = read_checkpoint(file)
    assert read['message_hub']['log']['loss'].mean() == 1.5
    assert read['message_hub']['info'] == 3
    assert list(state_dict_of(read)) == ['a']


def test_runs_no_code(evil):
    """Whoever reads: a command, mmengine behind it, a backbone's start."""

    def refused(read, *arguments):
        with pytest.raises(InputError) as error:
            read(*arguments)
        assert evil in str(error.value)
        assert not os.path.exists('ran')

    refused(read_checkpoint, evil)
    refused(AttentionPretrained(evil), nn.Linear(1, 1))
    refused(read_ahead, evil, False)
    refused(CheckpointLoader.load_checkpoint, evil, 'cpu')


@pytest.fixture
def system_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(meta=system()), 'evil.pth')
    return tmp_path / 'evil.pth'


@pytest.mark.usefixtures('system_file')
def test_runner_runs_no_code():
    """Neither with load_from nor with resume nor with init_cfg."""
    from mmengine.model import BaseModule
    from mmengine.runner import Runner

    init_cfg = dict(type='Pretrained', checkpoint='evil.pth')
    load.register(False)
    runner = Runner(nn.Linear(1, 1), 'work', log_level='ERROR')
    for read in (
        lambda: runner.load_checkpoint('evil.pth'),
        lambda: runner.resume('evil.pth'),
        lambda: BaseModule(init_cfg).init_weights(),
    ):
        with pytest.raises(InputError, match=r'import \w+\.system.*--trust-c'):
            read()
    assert not os.path.exists('ran')
    load.register(True)
    CheckpointLoader.load_checkpoint('evil.pth')
    assert os.path.exists('ran')


@pytest.mark.usefixtures('system_file')
def test_trust_lets_code_run(monkeypatch):
    read_checkpoint('evil.pth', trust=True)
    assert os.path.exists('ran')
    # Torch's own switch is for who does not use our tools.
    os.remove('ran')
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    load.register(False)
    with pytest.raises(InputError, match='trust'):
        read_checkpoint('evil.pth')
    monkeypatch.setattr(load, '_trust', None)
    read_checkpoint('evil.pth')
    assert os.path.exists('ran')


@pytest.mark.parametrize(
    'address',
    [
        'http://x/evil.pth',
        'https://x/evil.pth',
        'torchvision://resnet50',
        'modelzoo://resnet50',
        'open-mmlab://resnext50_32x4d',
        'openmmlab://resnext50_32x4d',
        'mmcls://vgg11',
        's3://bucket/evil.pth',
        'cluster:s3://bucket/evil.pth',
        'petrel://bucket/evil.pth',
        'pavi://evil.pth',
        'new://evil.pth',
    ],
)
def test_no_address_runs_code(address, system_file, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(system_file.parent))
    evil = system_file.read_bytes()
    monkeypatch.setattr(
        torch.hub,
        'download_url_to_file',
        lambda url, file: Path(file).write_bytes(evil),
    )
    load.register(False)
    with pytest.raises(InputError, match=re.escape(address)):
        CheckpointLoader.load_checkpoint(address)
    assert not os.path.exists('ran')


def test_changes_nothing_in_the_process(tmp_path, system_file):
    file = save(tmp_path / 'x.pth')
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([np.ndarray])
    before = dict(os.environ)
    read_checkpoint(file)
    read_checkpoint(file, trust=True)
    read_ahead(file, trust=False)
    with pytest.raises(InputError):
        read_checkpoint(str(system_file), trust=False)
    CheckpointLoader.load_checkpoint(file)
    assert dict(os.environ) == before
    now = torch.serialization.get_safe_globals()
    assert set(now) == {*allowed, np.ndarray}
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)


def test_what_was_read_ahead_is_given_once(tmp_path, reads):
    file = save(tmp_path / 'x.pth')
    content = read_ahead(file, trust=False)
    given = CheckpointLoader.load_checkpoint(file, 'cpu')
    assert given is content
    assert reads == [file]
    weight = weakref.ref(content['state_dict']['module.a'])
    del content, given
    assert weight() is None  # nobody keeps it
    CheckpointLoader.load_checkpoint(file)
    assert reads == [file] * 2
    read_ahead(file, trust=False)
    moved = CheckpointLoader.load_checkpoint(file, torch.device('meta'))
    assert moved['state_dict']['module.a'].is_meta
    read_ahead(file, trust=False)
    CheckpointLoader.load_checkpoint(file, lambda storage, place: storage)
    assert reads == [file] * 5  # only torch can call a function


@pytest.fixture
def untrained(state, tmp_path):
    """A checkpoint of the demo's detector."""
    meta = dict(dataset_meta=dict(classes=tuple('abcde')), cfg='')
    file = tmp_path / 'untrained.pth'
    torch.save(dict(state_dict=state, meta=meta), file)
    return file


def test_commands_read_once(untrained, shapes, tmp_path, reads):
    options = quick_options(shapes, tmp_path / 'work')
    image = next((shapes / 'val').glob('*.png'))
    before = dict(os.environ)
    publish = 'model_converters/publish_model.py'
    on_image = (image, '--out-dir', tmp_path, '--device', 'cpu')
    for tool, arguments in (
        ('test.py', (DEMO, untrained, *options)),
        ('predict.py', (DEMO, untrained, *on_image)),
        (publish, (untrained, tmp_path / 'published.pth')),
    ):
        del reads[:]
        code, output = run_here(f'tools/{tool}', *arguments)
        assert code == 0, output
        assert reads.count(str(untrained)) == 1, (tool, reads)
        names = [n for n in os.environ if n.startswith('TORCH_')]
        assert names == [n for n in before if n.startswith('TORCH_')]


@pytest.mark.slow
def test_resuming_reads_once(trained, tmp_path, reads):
    """The training is at its end: nothing remains but to load."""
    options = quick_options(trained.data, tmp_path)
    code, output = run_here(
        'tools/train.py', DEMO, '--resume', trained.checkpoint, *options
    )
    assert code == 0, output
    assert reads == [str(trained.checkpoint)]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda file: None, 'no such checkpoint'),
        (lambda file: file.touch(), 'is not a checkpoint that torch'),
        (lambda file: file.write_text('hello'), 'is not a checkpoint that t'),
        (
            lambda file: file.write_bytes(Path(save(file)).read_bytes()[:-70]),
            'is not a checkpoint that torch',
        ),
        (lambda file: torch.save([1, 2], file), 'holds a list, not a check'),
    ],
    ids=['missing', 'empty', 'text', 'cut', 'list'],
)
def test_not_a_checkpoint(make, message, tmp_path):
    make(tmp_path / 'x.pth')
    with pytest.raises(InputError, match=message):
        read_checkpoint(str(tmp_path / 'x.pth'))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What is downloaded, a list that grows; each file has one weight."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    urls = []

    def download(url, file):
        urls.append(url)
        torch.save(
            {'backbone.a': torch.ones(1), 'head.b': torch.ones(1)}, file
        )

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    return urls


def test_model_zoos(asked, tmp_path, monkeypatch):
    """Names are found in the tables of mmengine, without torchvision."""
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    for depth in (18, 34, 50, 101, 152):
        read_checkpoint(f'torchvision://resnet{depth}')
        url = rf'https://.*/resnet{depth}-\w{{8}}\.pth'
        assert re.fullmatch(url, asked.pop())
    read_checkpoint('torchvision://resnet50')
    assert not asked  # it is in torch's cache
    name = 'resnext50_32x4d'
    for scheme in ('open-mmlab', 'openmmlab'):
        assert 'backbone.a' in read_checkpoint(f'{scheme}://{name}')
    assert len(asked) == 1
    assert re.search('resnext50.32x4d', asked[0])
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'open_mmlab.json').write_text('{"mine": "mine.pth"}')
    with pytest.raises(InputError, match=r'mine\.pth: no such checkpoint'):
        read_checkpoint('open-mmlab://mine')
    save(tmp_path / 'mine.pth')
    assert 'state_dict' in read_checkpoint('open-mmlab://mine')
    with pytest.raises(InputError, match=r'cannot be fetched: .*torchvision'):
        read_checkpoint('torchvision://resnet50.imagenet1k_v2')
    with pytest.raises(InputError, match="has no model 'none'"):
        read_checkpoint('open-mmlab://none')


def test_unreachable_address(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(InputError, match=r'9/x\.pth cannot be downloaded'):
        read_checkpoint('http://127.0.0.1:9/x.pth')

    def offline(url, file):
        raise URLError('no route')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', offline)
    message = r'no route.*https://.*resnet50.*init_cfg\.checkpoint=F'
    with pytest.raises(InputError, match=message):
        read_checkpoint('torchvision://resnet50')


def detector(
    change=lambda cfg: None,
    name='demo/faster_rcnn_r50_eca_shapes',
    device='meta',
):
    """A detector of a config; on the device meta it has shapes only."""
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    cfg = load_config(name)
    change(cfg)
    with torch.device(device):
        return MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def real():
    return detector(device='cpu')


@pytest.fixture(scope='module')
def state(real):
    return {key: value.clone() for key, value in real.state_dict().items()}


def test_fits(real, state):
    for weight in real.parameters():
        nn.init.zeros_(weight)
    load_strictly(real, state)
    for key, value in real.state_dict().items():
        assert torch.equal(value, state[key])
    old = {k: v for k, v in state.items() if 'num_batches' not in k}
    load_strictly(real, old)
    # No alpha in the file, one in the config: a paper's weights fit.
    paper = {k: v for k, v in state.items() if not k.endswith('alpha')}
    load_strictly(real, paper)
    assert real.backbone.layer1[0].eca.alpha == 1


def backbone(**changes):
    return lambda cfg: cfg.model.backbone.update(changes)


def first_plugin(**changes):
    """A change of the plugin of stage 1."""
    return lambda cfg: cfg.model.backbone.plugins[0].cfg.update(changes)


def paper_start(cfg):
    for plugin in cfg.model.backbone.plugins:
        plugin.cfg.identity_init = False


def more_classes(cfg):
    cfg.model.roi_head.bbox_head.num_classes = 7


# How the config of a detector differs from that of its checkpoint, what the
# message says, and what it must not say.
MISFITS = {
    'no plugin': (
        backbone(plugins=None),
        (
            '32 in the checkpoint, not in the config',
            'backbone.layer*.*.eca.conv.weight (16)',
            'trained with the plugin eca, which the config lacks',
        ),
        'depth',
    ),
    'kernel size': (
        first_plugin(kernel_size=5),
        (
            '3 of other shapes',
            '(1, 1, 3) in the checkpoint, (1, 1, 5) in the config',
            'another ECA kernel_size: stage 1 has 3, the config 5',
        ),
        'classes',
    ),
    'classes': (
        more_classes,
        (
            'roi_head.bbox_head.fc_cls.weight (1): (6, 256)',
            'another number of classes',
        ),
        'kernel_size',
    ),
    'width': (
        backbone(stem_channels=32),
        ('another backbone: its stem has another width',),
        'classes',
    ),
    'depth': (
        backbone(depth=101),
        ('a ResNet-50 in the checkpoint, a ResNet-101 in the config',),
        'trained without',
    ),
    'alpha': (
        paper_start,
        ('trained with identity_init=True',),
        'which the config lacks',
    ),
}


def refusal(model, state):
    with pytest.raises(InputError) as error:
        load_strictly(model, state)
    text = str(error.value)
    assert '--non-strict' in text
    return text


@pytest.fixture(scope='module')
def hollow(state):
    """The shapes of a checkpoint, for detectors that have shapes only."""
    return {key: value.to('meta') for key, value in state.items()}


@pytest.mark.parametrize('case', MISFITS)
def test_misfits_are_explained(case, hollow):
    change, told, not_told = MISFITS[case]
    text = refusal(detector(change), hollow)
    for part in told:
        assert part in text
    assert not_told not in text


def test_other_weights_are_explained(hollow):
    plain = {k: v for k, v in hollow.items() if '.eca.' not in k}
    text = refusal(detector(), plain)
    assert '32 in the config, not in the checkpoint' in text
    assert 'trained without the plugin eca' in text
    text = refusal(detector(name='demo/retinanet_r50_eca_shapes'), hollow)
    assert 'another detector: it has roi_head, the config has not' in text
    text = refusal(nn.Linear(2, 2), {'weight': torch.ones(2, 2)})
    assert 'another model, or cut: compare the two configs' in text
