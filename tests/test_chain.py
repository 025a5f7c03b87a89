"""The whole chain: train, publish, test, and start another detector."""

import hashlib
import re

import pytest
import torch
from conftest import (
    DEMO,
    ROOT,
    box_ap,
    quick_options,
    run_here,
    run_tool,
    user_error,
)
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdet_attn.weights.save import write_checkpoint

PUBLISH = 'tools/model_converters/publish_model.py'


@pytest.fixture(scope='module')
def published(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp('published')
    code, output = run_here(PUBLISH, trained.checkpoint, folder / 'eca.pth')
    assert code == 0, output
    (file,) = folder.glob('*.pth')
    return file


@pytest.mark.slow
def test_published_checkpoint(trained, published):
    """Weights, config, classes, versions; loads safely; named by its hash."""
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert published.name == f'eca-{digest[:8]}.pth'
    content = torch.load(published, weights_only=True)
    meta = content['meta']
    assert meta['dataset_meta']['classes'][0] == 'circle'
    assert {'mmdet_attn', 'torch', 'mmdet'} <= meta['versions'].keys()
    assert Config.fromstring(meta['cfg'], '.py').model.type == 'FasterRCNN'
    original = torch.load(trained.checkpoint, weights_only=False)
    assert content['state_dict'].keys() == original['state_dict'].keys()
    for key, value in original['state_dict'].items():
        assert torch.equal(content['state_dict'][key], value)
    before = trained.checkpoint.stat().st_size
    assert published.stat().st_size < before / 2


@pytest.mark.slow
def test_published_detector_tests_and_its_backbone_serves(
    trained, published, tmp_path
):
    """Same AP from the published file; its backbone in a RetinaNet."""
    options = quick_options(trained.data, tmp_path / 'test')
    output = run_tool('tools/test.py', DEMO, published, *options)
    assert box_ap(output) == box_ap(trained.log)

    config = tmp_path / 'retinanet.py'
    config.write_text(
        f"""
_base_ = '{ROOT}/configs/demo/retinanet_r50_eca_shapes.py'
model = dict(backbone=dict(init_cfg=dict(_delete_=True,
    type='mmdet_attn.AttentionPretrained', checkpoint='{published}')))
"""
    )
    options = [
        option
        for option in quick_options(trained.data, tmp_path / 'work')
        if not str(option).startswith('model.test_cfg.rcnn')
    ]
    output = run_tool('tools/train.py', config, *options)
    for stage, count in enumerate((3, 4, 6, 3), 1):
        assert f'layer{stage}.*.eca   {count}  loaded' in output
    assert re.search(r'Epoch\(train\) +\[2\]', output)
    wrong = 'model.backbone.plugins.0.cfg.kernel_size=7'
    code, output = run_here('tools/train.py', config, *options, wrong)
    assert code == 2, output
    assert 'stage 1 has 3, the config 7' in output


def test_publish(tmp_path):
    """What a training writes, made small."""
    content = dict(
        state_dict={'a': nn.Parameter(torch.ones(2))},
        optimizer=dict(state=torch.ones(1000)),
        message_hub=dict(log=HistoryBuffer([1.0], [1])),
        meta=dict(
            cfg='a = 1',
            epoch=2,
            iter=4,
            seed=3,
            time='now',
            dataset_meta=dict(classes=('x',), palette=[(1, 2, 3)], more=4),
        ),
    )
    source = tmp_path / 'epoch_2.pth'
    torch.save(content, source)
    code, output = run_here(PUBLISH, source, tmp_path / 'x.pth')
    assert code == 0, output
    (file,) = tmp_path.glob('x-*.pth')
    assert str(file) in output
    published = torch.load(file, weights_only=True)
    assert published.keys() == {'state_dict', 'meta'}
    assert torch.equal(published['state_dict']['a'], torch.ones(2))
    meta = published['meta']
    assert meta.pop('versions').keys() >= {'mmdet_attn', 'torch'}
    assert meta == dict(
        cfg='a = 1',
        epoch=2,
        iter=4,
        dataset_meta=dict(classes=('x',), palette=[(1, 2, 3)]),
    )


def test_publish_refuses(tmp_path):
    source, there = tmp_path / 'source.pth', tmp_path / 'there.pth'
    torch.save(dict(state_dict={}, meta=dict(cfg='')), source)
    torch.save({'a': torch.ones(1)}, there)
    for arguments, message in (
        ((source, tmp_path / 'x.bin'), 'OUTPUT must end in .pth, got'),
        ((source, tmp_path / 'no' / 'x.pth'), 'in a folder that exists'),
        ((source, there), 'there.pth exists: --force overwrites it'),
        ((source, source, '--force'), 'is INPUT: give another name'),
        ((there, tmp_path / 'x.pth'), 'meta with cfg, and has a'),
    ):
        assert message in user_error(PUBLISH, *arguments)
    # When writing fails, nothing is left.
    with pytest.raises(Exception, match='pickle'):
        write_checkpoint({'x': lambda: 0}, tmp_path / 'x.pth')
    assert set(tmp_path.iterdir()) == {source, there}
