"""The whole chain: train, publish, test, and start another detector."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.config import Config
from test_tools import CONFIG, box_ap, last_checkpoint, on, user_error

from mmdet_attn.errors import InputError
from mmdet_attn.weights.save import (
    check_target,
    for_publication,
    write_checkpoint,
)

pytest_plugins = ['test_tools']


@pytest.fixture
def published(trained, tmp_path):
    _, work, _ = trained
    run_tool(
        'tools/model_converters/publish_model.py',
        last_checkpoint(work),
        tmp_path / 'faster_rcnn_r50_eca_shapes.pth',
    )
    (file,) = tmp_path.glob('*.pth')
    return file


def test_published_checkpoint(trained, published):
    """Weights, config, classes, versions; loads safely; named by its hash."""
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert published.name == f'faster_rcnn_r50_eca_shapes-{digest[:8]}.pth'
    content = torch.load(published, weights_only=True)
    assert content.keys() == {'state_dict', 'meta'}
    meta = content['meta']
    assert meta.keys() == {'cfg', 'epoch', 'iter', 'dataset_meta', 'versions'}
    assert meta['dataset_meta']['classes'][0] == 'circle'
    assert {'mmdet_attn', 'torch', 'mmdet'} <= meta['versions'].keys()
    cfg = Config.fromstring(meta['cfg'], '.py')
    assert cfg.model.type == 'FasterRCNN'
    original = torch.load(last_checkpoint(trained[1]), weights_only=False)
    assert content['state_dict'].keys() == original['state_dict'].keys()
    for key, value in original['state_dict'].items():
        assert torch.equal(content['state_dict'][key], value)
    before = last_checkpoint(trained[1]).stat().st_size
    assert published.stat().st_size < before / 2


def test_published_detector_tests_and_its_backbone_serves(
    trained, published, tmp_path
):
    """Same AP from the published file; its backbone in a RetinaNet."""
    data, _, log = trained
    output = run_tool(
        'tools/test.py', CONFIG, published, *on(data, tmp_path / 'test')
    )
    assert box_ap(output) == box_ap(log)

    config = tmp_path / 'retinanet.py'
    config.write_text(
        f"""
_base_ = '{ROOT}/configs/demo/retinanet_r50_eca_shapes.py'
model = dict(backbone=dict(init_cfg=dict(_delete_=True,
    type='mmdet_attn.AttentionPretrained', checkpoint='{published}')))
"""
    )
    output = run_tool('tools/train.py', config, *on(data, tmp_path / 'work'))
    for stage, count in enumerate((3, 4, 6, 3), 1):
        assert f'layer{stage}.*.eca   {count}  loaded' in output
    assert re.search(r'Epoch\(train\) +\[2\]', output)
    wrong = 'model.backbone.plugins.0.cfg.kernel_size=7'
    output = user_error(
        'tools/train.py',
        config,
        *on(data, tmp_path / 'work'),
        wrong,
        process=True,
    )
    assert 'ECA kernels 3,5,5,7 by stage, the config 7,5,5,7' in output


def test_publish_refuses(trained, tmp_path):
    source = last_checkpoint(trained[1])
    output = user_error(
        'tools/model_converters/publish_model.py', source, tmp_path / 'x.bin'
    )
    assert 'publish_model.py: error: OUTPUT must end in .pth' in output
    there = tmp_path / 'there.pth'
    torch.save({'a': torch.ones(1)}, there)
    for output, force, message in (
        (tmp_path / 'no' / 'x.pth', False, 'in a folder that exists'),
        (tmp_path, True, 'in a folder that exists'),
        (there, False, 'there.pth exists: --force overwrites it'),
        (source, True, 'is INPUT: give another name'),
    ):
        with pytest.raises(InputError, match=message):
            check_target(str(output), force, str(source))
    check_target(str(there), True, str(source))
    check_target(str(tmp_path / 'new.pth'), False, str(source))
    with pytest.raises(InputError, match='meta with cfg, and has a'):
        for_publication(torch.load(there))


def test_nothing_is_left_when_writing_fails(tmp_path):
    with pytest.raises(Exception, match='pickle'):
        write_checkpoint({'x': lambda: 0}, tmp_path / 'x.pth')
    assert not list(Path(tmp_path).iterdir())
