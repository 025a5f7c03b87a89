"""What a training may start from: load_from and --resume."""

from types import SimpleNamespace

import pytest
import torch
from conftest import DEMO, NO_WORKERS, load_config, user_error

from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import StartHook

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
