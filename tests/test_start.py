"""What a training may start from: load_from and --resume."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import DEMO, NO_WORKERS, load_config, run_tool, user_error

from mmdet_attn.config_files import load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import StartHook
from mmdet_attn.weights.start import start_from

pytest.importorskip('mmdet')


def build(**backbone):
    """The demo's detector."""
    from mmdet.registry import MODELS

    model = load_config(
        DEMO.removeprefix('configs/').removesuffix('.py')
    ).model
    model.backbone.update(backbone)
    return MODELS.build(model)


def start(model, state, resume=False, strict=True):
    """What the hook logs."""
    lines = []
    logger = SimpleNamespace(info=lines.append)
    runner = SimpleNamespace(model=model, _resume=resume, logger=logger)
    StartHook(strict).after_load_checkpoint(runner, dict(state_dict=state))
    return lines


@pytest.fixture(scope='module')
def plain():
    return build(plugins=None)


def test_weights_that_fit(plain):
    for resume in (False, True):
        assert not start(plain, plain.state_dict(), resume)


def test_another_number_of_classes(plain):
    """The layers of classes keep their start, and the log names them."""
    state = plain.state_dict()
    head = 'roi_head.bbox_head.'
    for name in ('fc_cls.weight', 'fc_cls.bias', 'fc_reg.weight'):
        state[head + name] = torch.zeros_like(state[head + name]).repeat(
            2, *[1] * (state[head + name].dim() - 1)
        )
    (line,) = start(plain, state)
    assert f'{head}fc_cls.weight' in line
    assert 'fc_reg.bias' not in line
    with pytest.raises(InputError, match='number of classes'):
        start(plain, state, resume=True)


def test_new_plugins_start_as_identity_or_not_at_all(plain):
    state = plain.state_dict()
    assert not start(build(), state)
    with pytest.raises(InputError, match='plugin eca'):
        start(build(), state, resume=True)
    cfg = dict(type='mmdet_attn.ECA')
    fresh = build(plugins=[dict(cfg=cfg, position='after_conv3')])
    with pytest.raises(InputError, match='without the plugin eca'):
        start(fresh, state)
    assert not start(fresh, state, strict=False)


def test_plugins_that_the_network_lacks(plain):
    with pytest.raises(InputError, match='trained with the plugin eca'):
        start(plain, build().state_dict())


@pytest.mark.parametrize(
    ('options', 'cause'),
    [
        (['model.backbone.depth=101'], 'another backbone: a'),
        (['model.neck.out_channels=32'], 'does not fit'),
    ],
)
def test_tool_refuses_another_network(options, cause, shapes, tmp_path):
    file = tmp_path / 'plain.pth'
    torch.save(dict(state_dict=build().state_dict()), file)
    command = ['tools/train.py', DEMO, '--data-root', shapes]
    command += ['--work-dir', tmp_path, '--cfg-options', *NO_WORKERS]
    message = user_error(*command, *options, f'load_from={file}')
    assert cause in message
    assert '--non-strict' in message


@pytest.mark.parametrize('strict', [True, False])
def test_the_backbone_is_not_fetched_before(tmp_path, strict):
    """Its weights are in the checkpoint, unless that may lack some."""
    file = str(tmp_path / 'detector.pth')
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.ones(1)}), file)
    cfg = load_config('faster_rcnn_r50_eca')
    before = copy.deepcopy(cfg.model.neck)
    start_from(cfg, file, strict)
    assert cfg.load_from == file
    assert (cfg.model.backbone.init_cfg is None) == strict
    assert cfg.model.neck == before


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        (None, 0, 'no such checkpoint'),
        ('conv1.weight', 1.0, 'not a checkpoint of a detector'),
        ('backbone.conv1.weight', torch.nan, 'NaN or infinite'),
    ],
)
def test_bad_checkpoints_are_refused(shapes, tmp_path, name, value, message):
    file = tmp_path / 'weights.pth'
    if name:
        torch.save({name: torch.full((3,), value)}, file)
    command = ['tools/train.py', DEMO, '--data-root', shapes]
    command += ['--work-dir', tmp_path / 'work', '--load-from', file]
    assert message in user_error(*command)


@pytest.mark.slow
def test_own_classes_from_another_detector(trained, tmp_path):
    """Three flags, and what they do is in the log and in the config."""
    data = shutil.copytree(trained.data, tmp_path / 'data')
    for split in ('train', 'val'):
        file = data / f'annotations/instances_{split}.json'
        content = json.loads(file.read_text())
        content['categories'] = content['categories'][:1]
        for annotation in content['annotations']:
            annotation['category_id'] = content['categories'][0]['id']
        file.write_text(json.dumps(content))
    work = tmp_path / 'work'
    output = run_tool(
        *('tools/train.py', DEMO, '--data-root', data, '--work-dir', work),
        *('--load-from', trained.checkpoint, '--epochs', 1),
        *('--image-scale', 128, 96, '--cfg-options', *NO_WORKERS),
        'default_hooks.logger.interval=1',
    )
    assert 'load_from has another number of classes' in output
    assert 'The warm-up takes 12 iterations' in output
    assert (work / 'epoch_1.pth').exists()
    cfg = load_config_file(work / Path(DEMO).name)
    assert cfg.param_scheduler[1].end == 1
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (128, 96)
