"""--epochs: the schedule keeps its form; a long warm-up is reported."""

from types import SimpleNamespace

import pytest
import torch
from conftest import DEMO, user_error
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmdet_attn.config_files import load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.training.schedule import WarmUpHook, scale_epochs

pytest.importorskip('mmdet')

OURS = 'mmdet_attn::{}.py'.format
YOLOX = OURS('yolox_s')
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
TOOD = 'mmdet::tood/tood_r50_fpn_1x_coco.py'
LENGTH = 20  # iterations of an epoch


def scaled(name, epochs):
    cfg = load_config_file(name)
    scale_epochs(cfg, epochs)
    assert cfg.train_cfg.max_epochs == epochs
    return cfg


def schedulers(cfg, lr=1.0):
    from mmdet.engine import schedulers  # noqa: F401

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    wrapper = OptimWrapper(optimizer)
    given = dict(optimizer=wrapper, epoch_length=LENGTH)
    return optimizer, [
        PARAM_SCHEDULERS.build(dict(one), default_args=given)
        for one in cfg.param_scheduler
    ]


def rates(cfg):
    """The learning rate of every iteration."""
    optimizer, found = schedulers(cfg)
    epoch_length, rates = LENGTH, []
    for number in range(cfg.train_cfg.max_epochs * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for one in found:
            if not one.by_epoch or (number + 1) % epoch_length == 0:
                one.step()
    return rates


@pytest.mark.parametrize(
    ('epochs', 'warm_up', 'milestones'),
    [(6, 250, [4, 6]), (12, 501, [8, 11]), (36, 501, [24, 33])],
)
def test_the_schedule_of_the_paper(epochs, warm_up, milestones):
    cfg = scaled(OURS('faster_rcnn_r50'), epochs)
    first, second = cfg.param_scheduler
    assert (first.begin, first.end) == (0, warm_up)
    assert (second.begin, second.end) == (0, epochs)
    assert second.milestones == milestones
    assert cfg.train_cfg.val_interval == 1


def test_switches_of_yolox():
    cfg = scaled(YOLOX, 60)
    ends = [(x.begin, x.end) for x in cfg.param_scheduler]
    assert ends == [(0, 1), (1, 57), (57, 60)]
    assert cfg.param_scheduler[1].T_max == 57
    assert cfg.custom_hooks[0].num_last_epochs == 3
    assert cfg.train_cfg.val_interval == 2
    assert cfg.default_hooks.checkpoint.interval == 2


def test_switches_of_rtmdet():
    cfg = scaled(RTMDET, 30)
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 100)
    assert (cosine.begin, cosine.end, cosine.T_max) == (15, 30, 15)
    assert cfg.custom_hooks[1].switch_epoch == 28
    assert cfg.train_cfg.dynamic_intervals == [(28, 1)]
    assert cfg.train_cfg.val_interval == 1
    # The last epochs, without mosaics, are not lost.
    assert scaled(RTMDET, 3).custom_hooks[1].switch_epoch == 2


def test_epochs_that_a_head_counts():
    assert load_config_file(TOOD).model.train_cfg.initial_epoch == 4
    assert scaled(TOOD, 6).model.train_cfg.initial_epoch == 2


@pytest.mark.parametrize('epochs', [1, 2, 3, 7, 50])
@pytest.mark.parametrize('name', [OURS('retinanet_r50'), YOLOX, RTMDET, DEMO])
def test_any_length_can_be_built(name, epochs):
    found = rates(scaled(name, epochs))
    assert len(found) == epochs * LENGTH
    assert all(0 <= rate <= 1.01 for rate in found)


def test_the_form_is_kept():
    """The rate at a share of the training is that of before."""
    long, short = rates(load_config_file(RTMDET)), rates(scaled(RTMDET, 60))
    assert max(abs(long[5 * i] - short[i]) for i in range(250, len(short))) < (
        5e-3
    )


@pytest.mark.parametrize(
    ('cfg', 'epochs', 'message'),
    [
        (dict(train_cfg=dict(max_iters=9000)), 3, 'no train_cfg.max_epochs'),
        (dict(), 3, 'no train_cfg.max_epochs'),
        (dict(train_cfg=dict(max_epochs=12)), 0, 'at least 1, got 0'),
    ],
)
def test_refused(cfg, epochs, message):
    with pytest.raises(InputError, match=message):
        scale_epochs(Config(cfg), epochs)


def test_two_lengths_are_refused(shapes, tmp_path):
    message = user_error(
        *('tools/train.py', DEMO, '--data-root', shapes, '--epochs', 4),
        *('--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=3'),
    )
    assert '--epochs 4 contradicts' in message


def warned(cfg):
    """What the hook says of a training with epochs of 20 iterations."""
    lines = []
    runner = SimpleNamespace(
        param_schedulers=schedulers(cfg)[1],
        max_iters=cfg.train_cfg.max_epochs * LENGTH,
        train_dataloader=range(LENGTH),
        logger=SimpleNamespace(warning=lines.append),
    )
    WarmUpHook().before_train(runner)
    runner.param_schedulers = {'generator': runner.param_schedulers}
    WarmUpHook().before_train(runner)
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    return lines[: len(lines) // 2]


def test_a_long_warm_up_is_reported():
    cfg = load_config_file(OURS('faster_rcnn_r50'))
    (line,) = warned(cfg)
    assert '501 iterations' in line
    assert '240 iterations' in line
    assert 'end=24 in param_scheduler.0' in line
    cfg.param_scheduler[0].end = 24
    assert not warned(cfg)


def test_a_warm_up_in_epochs():
    assert not warned(load_config_file(YOLOX))  # 5 of 300
    (line,) = warned(scaled(YOLOX, 5))
    assert 'takes 20 iterations' in line
