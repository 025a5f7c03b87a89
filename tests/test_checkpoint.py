"""Checkpoints: read safely, fit or be refused with the likely cause."""

import os
import pickle
import re
import sys
from urllib.error import URLError

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import load_strictly
from mmdet_attn.weights.load import (
    FORCE_SAFE,
    FORCE_UNSAFE,
    read_checkpoint,
    state_dict_of,
)


class Evil:
    def __reduce__(self):
        return os.system, ('touch ran',)


@pytest.fixture(autouse=True)
def restore_environment(monkeypatch):
    for name in (FORCE_SAFE, FORCE_UNSAFE):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.serialization.clear_safe_globals()
    for name in (FORCE_SAFE, FORCE_UNSAFE):
        os.environ.pop(name, None)


def test_reads_what_mmengine_writes(tmp_path):
    import numpy as np

    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {
        'state_dict': {'module.a': torch.ones(2)},
        'message_hub': {'log': {'loss': buffer}, 'info': np.float64(3)},
        'meta': {'classes': ('a', 'b'), 'iter': 3},
    }
    torch.save(content, tmp_path / 'good.pth')
    read = read_checkpoint(str(tmp_path / 'good.pth'))
    assert read['message_hub']['log']['loss'].mean() == 1.5
    assert read['message_hub']['info'] == 3
    assert list(state_dict_of(read)) == ['a']


def test_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {}, 'meta': Evil()}, 'evil.pth')
    with pytest.raises(InputError, match=r'import \w+\.system.*--trust-che'):
        read_checkpoint('evil.pth', trust=False)
    assert not os.path.exists('ran')
    # Neither does any later load in this process, mmengine's included.
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint('evil.pth', 'cpu')
    assert not os.path.exists('ran')
    read_checkpoint('evil.pth', trust=True)
    assert os.path.exists('ran')


def test_unreachable_address():
    with pytest.raises(InputError, match=r'9/x\.pth cannot be downloaded'):
        read_checkpoint('http://127.0.0.1:9/x.pth')


def test_getattr_fetches_statistics_only(tmp_path):
    class Fetch:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save({'meta': Fetch()}, tmp_path / 'fetch.pth')
    with pytest.raises(InputError, match=r'import builtins\.getattr'):
        read_checkpoint(str(tmp_path / 'fetch.pth'))


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(InputError, match='no such checkpoint'):
        read_checkpoint(str(tmp_path / 'none.pth'))
    for name, content in (('empty', b''), ('text', b'hello world')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match='is not a checkpoint that torch'):
            read_checkpoint(str(tmp_path / name))
    torch.save({'a': torch.ones(1000)}, tmp_path / 'whole')
    whole = (tmp_path / 'whole').read_bytes()
    (tmp_path / 'cut').write_bytes(whole[:-700])
    with pytest.raises(InputError, match='is not a checkpoint that torch'):
        read_checkpoint(str(tmp_path / 'cut'))
    torch.save([1, 2], tmp_path / 'list')
    with pytest.raises(InputError, match='holds a list, not a checkpoint'):
        read_checkpoint(str(tmp_path / 'list'))


def test_torchvision_addresses_need_no_torchvision(monkeypatch):
    """The configs' default weights: found in mmengine's own table."""
    from mmdet_attn.weights import torchvision

    asked = []
    monkeypatch.setattr(
        torchvision, 'load_from_http', lambda url, where: asked.append(url)
    )
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    torchvision.register()
    for depth in (18, 34, 50, 101, 152):
        CheckpointLoader.load_checkpoint(f'torchvision://resnet{depth}')
        assert re.fullmatch(
            rf'https://.*/resnet{depth}-\w{{8}}\.pth', asked.pop()
        )

    def offline(url, where):
        raise URLError('no route')

    monkeypatch.setattr(torchvision, 'load_from_http', offline)
    with pytest.raises(InputError, match=r'no route.*init_cfg\.checkpoint=F'):
        torchvision.load('torchvision://resnet50')


def detector(change=lambda cfg: None, name='demo/faster_rcnn_r50_eca_shapes'):
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    change(cfg)
    return MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def state():
    return detector().state_dict()


def refusal(model, state):
    with pytest.raises(InputError) as error:
        load_strictly(model, state)
    text = str(error.value)
    assert text.startswith('The checkpoint does not fit the config.')
    assert '--non-strict' in text
    return text


def test_fits(state):
    model = detector()
    load_strictly(model, state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])
    old = {k: v for k, v in state.items() if 'num_batches' not in k}
    load_strictly(model, old)


def test_paper_weights_fit_an_identity_start(state):
    """No alpha in the file, one in the config: that is no misfit."""
    model = detector()
    paper = {k: v for k, v in state.items() if not k.endswith('alpha')}
    load_strictly(model, paper)
    assert model.backbone.layer1[0].eca.alpha == 1


def test_plugin_missing_in_the_config(state):
    def drop(cfg):
        cfg.model.backbone.plugins = None

    text = refusal(detector(drop), state)
    assert '32 in the checkpoint, not in the config' in text
    assert 'backbone.layer*.*.eca.conv.weight (16)' in text
    assert 'trained with the plugin eca, which the config lacks' in text


def test_plugin_missing_in_the_checkpoint(state):
    plain = {k: v for k, v in state.items() if '.eca.' not in k}
    text = refusal(detector(), plain)
    assert '32 in the config, not in the checkpoint' in text
    assert 'trained without the plugin eca' in text


def test_other_kernel_size(state):
    def widen(cfg):
        cfg.model.backbone.plugins[0].cfg.kernel_size = 5

    text = refusal(detector(widen), state)
    assert '3 of other shapes' in text
    assert '(1, 1, 3) in the checkpoint, (1, 1, 5) in the config' in text
    assert 'another ECA kernel_size: stage 1 has 3, the config 5' in text


def test_other_number_of_classes(state):
    def more(cfg):
        cfg.model.roi_head.bbox_head.num_classes = 7

    text = refusal(detector(more), state)
    assert 'roi_head.bbox_head.fc_cls.weight (1): (6, 256)' in text
    assert 'another number of classes' in text
    assert 'kernel_size' not in text


def test_other_width(state):
    def widen(cfg):
        cfg.model.backbone.stem_channels = 32

    text = refusal(detector(widen), state)
    assert 'another backbone: its stem has another width' in text
    assert 'classes' not in text


def test_other_detector(state):
    model = detector(name='demo/retinanet_r50_eca_shapes')
    text = refusal(model, state)
    assert 'another detector: it has roi_head, the config has not' in text


def test_other_depth(state):
    def deepen(cfg):
        cfg.model.backbone.depth = 101

    assert 'another backbone depth' in refusal(detector(deepen), state)


def test_alpha_missing_in_the_config(state):
    def paper_start(cfg):
        for plugin in cfg.model.backbone.plugins:
            plugin.cfg.identity_init = False

    text = refusal(detector(paper_start), state)
    assert 'trained with identity_init=True' in text
    assert 'which the config lacks' not in text


def test_another_model():
    text = refusal(nn.Linear(2, 2), {'weight': torch.ones(2, 2)})
    assert 'another model: compare the two configs' in text
