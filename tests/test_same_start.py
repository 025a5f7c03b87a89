"""One seed gives a host the same start with and without plugins."""

import copy

import pytest
import torch
from conftest import DEMO, load_config
from mmengine.registry import MODELS

from mmdet_attn.own_random import own_random
from mmdet_attn.weights.plugins import plugins_of

pytest.importorskip('mmdet')

GATE = dict(identity_init=True)
# A module that adds, too, and modules with norms and with their own starts.
PLUGINS = {
    'SE': GATE,
    'ECA': GATE,
    'CBAM': GATE,
    'GC': {},
    'CoordAtt': GATE,
    'NonLocal': dict(reduction=2),
}


def at_blocks(name):
    """In the blocks of the backbone."""
    cfg = dict(type=f'mmdet_attn.{name}', **PLUGINS[name])
    return dict(
        type='mmdet_attn.AttentionResNet',
        plugins=[
            dict(cfg=cfg, position='after_conv3'),
            dict(cfg=dict(cfg, postfix=2), position='after_block'),
        ],
    )


def inserted(name, at, host):
    cfg = dict(type=f'mmdet_attn.{name}', **PLUGINS[name])
    spec = dict(cfg=cfg, at=at)
    return dict(type='mmdet_attn.insert', host=host, plugins=[spec])


def detector(where, name, **backbone):
    """The config of the demo's detector with a plugin in one of its parts."""
    model = load_config(DEMO.removeprefix('configs/').removesuffix('.py'))
    model = model.model
    model.backbone.update(type='ResNet', plugins=None, init_cfg=None)
    model.backbone.update(backbone)
    if where == 'blocks':
        model.backbone.update(at_blocks(name))
    elif where == 'backbone':
        model.backbone = inserted(name, 'layer*.*.bn3', model.backbone)
    elif where == 'neck':
        model.neck = inserted(name, 'fpn_convs.?', model.neck)
    elif where == 'head':
        model.rpn_head = inserted(name, 'rpn_conv', model.rpn_head)
    elif where == 'AttentionNeck':
        plugin = dict(type=f'mmdet_attn.{name}', **PLUGINS[name])
        levels = dict(type='mmdet_attn.AttentionNeck', in_channels=[48] * 4)
        model.neck = [model.neck, dict(levels, plugin=plugin)]
    return model


def start(cfg, tmp_path, seed=0):
    """The network as a training starts it, and the next random number."""
    from mmengine.config import Config

    from mmdet_attn.launch import build_runner

    runner = build_runner(
        Config(
            dict(
                model=copy.deepcopy(cfg),
                work_dir=str(tmp_path),
                experiment_name=f'{tmp_path.name}_{len([*tmp_path.iterdir()])}',
                default_scope='mmdet',
                randomness=dict(seed=seed),
                log_level='ERROR',
            )
        )
    )
    runner._init_model_weights()
    return runner.model, torch.rand(3)


def weights(model):
    """Those of the host, under its own names."""
    plugins = tuple(f'{name}.' for name in plugins_of(model))
    return {
        key.replace('neck.0.', 'neck.'): value
        for key, value in model.state_dict().items()
        if not key.startswith(plugins or ' ')
    }


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    model, after = start(
        detector(None, None), tmp_path_factory.mktemp('plain')
    )
    return weights(model), after


WHERE = [
    *(('blocks', name) for name in PLUGINS),
    ('backbone', 'CBAM'),
    ('backbone', 'GC'),
    ('neck', 'CBAM'),
    ('head', 'CBAM'),
    ('head', 'NonLocal'),
    ('AttentionNeck', 'CBAM'),
]


@pytest.mark.parametrize(('where', 'name'), WHERE)
def test_host_is_that_without_plugins(where, name, plain, tmp_path):
    model, after = start(detector(where, name), tmp_path)
    assert plugins_of(model)
    assert_same(weights(model), plain[0])
    assert torch.equal(after, plain[1])


def test_attention_resnet_without_plugins_is_stock(plain, tmp_path):
    cfg = detector(None, None)
    cfg.backbone.type = 'mmdet_attn.AttentionResNet'
    model, after = start(cfg, tmp_path)
    assert_same(weights(model), plain[0])
    assert torch.equal(after, plain[1])


def of_plugins(model):
    return {
        name: plugin.state_dict() for name, plugin in plugins_of(model).items()
    }


@pytest.mark.parametrize('where', ['blocks', 'backbone'])
def test_plugins_differ_from_each_other_and_between_seeds(where, tmp_path):
    cfg = detector(where, 'CBAM')
    model, _ = start(cfg, tmp_path)
    again, _ = start(cfg, tmp_path)
    other, _ = start(cfg, tmp_path, seed=1)
    key = 'channel.fc1.weight'
    found = of_plugins(model)
    firsts = [state[key].flatten()[:8] for state in found.values()]
    for index, first in enumerate(firsts):
        assert not any(torch.equal(first, one) for one in firsts[:index])
    for name, state in of_plugins(again).items():
        assert_same(state, found[name])
    for name, state in of_plugins(other).items():
        assert not torch.equal(state[key], found[name][key])
    # The host of another seed is another one, too.
    assert not torch.equal(
        weights(model)['backbone.layer1.0.conv1.weight'],
        weights(other)['backbone.layer1.0.conv1.weight'],
    )


@pytest.mark.parametrize('name', ['CBAM', 'GC', 'NonLocal'])
@pytest.mark.parametrize('where', ['blocks', 'backbone'])
def test_plugins_start_as_in_their_papers(where, name, tmp_path):
    """Their own start, and not that which hosts give convolutions."""
    model, _ = start(detector(where, name), tmp_path)
    for plugin in plugins_of(model).values():
        torch.manual_seed(0)
        alone = type(plugin)(plugin.in_channels, **PLUGINS[name])
        for key, value in alone.state_dict().items():
            if value.numel() > 99 and value.std() > 0:
                own = plugin.state_dict()[key].std().item()
                assert own == pytest.approx(value.std().item(), rel=0.3)


@pytest.mark.parametrize('kind', ['Pretrained', 'AttentionPretrained'])
@pytest.mark.parametrize('where', ['blocks', 'backbone'])
def test_weights_of_plugins_are_still_loaded(where, kind, tmp_path):
    torch.manual_seed(7)
    trained = MODELS.build(detector(where, 'SE').backbone)
    file = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=trained.state_dict()), file)
    kind = kind if kind == 'Pretrained' else f'mmdet_attn.{kind}'
    cfg = dict(type=kind, checkpoint=str(file))
    model, _ = start(detector(where, 'SE', init_cfg=cfg), tmp_path)
    assert_same(
        dict(model.backbone.named_parameters()),
        dict(trained.named_parameters()),
    )


@pytest.mark.parametrize('kind', ['Pretrained', 'AttentionPretrained'])
@pytest.mark.parametrize('where', ['blocks', 'backbone'])
def test_same_start_from_plain_weights(where, kind, tmp_path):
    """The parts that are not loaded start as without plugins."""
    torch.manual_seed(7)
    file = tmp_path / 'plain.pth'
    torch.save(MODELS.build(detector(None, None).backbone).state_dict(), file)
    kind = kind if kind == 'Pretrained' else f'mmdet_attn.{kind}'
    cfg = dict(type=kind, checkpoint=str(file))
    plain, after = start(detector(None, None, init_cfg=cfg), tmp_path)
    model, next_ = start(detector(where, 'CBAM', init_cfg=cfg), tmp_path)
    assert_same(weights(model), weights(plain))
    assert torch.equal(next_, after)
    for plugin in plugins_of(model).values():
        assert not plugin.is_init


def test_names_of_parameters_keep_their_order():
    """Optimizers know their parameters by their places."""
    model = MODELS.build(detector('blocks', 'CBAM'))
    before = [*model.state_dict()]
    model.init_weights()
    assert [*model.state_dict()] == before


def test_own_random_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    found = {}
    for name in ('one', 'two', 'one'):
        with own_random(name):
            found.setdefault(name, []).append(torch.rand(4))
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(*found['one'])
    assert not torch.equal(found['one'][0], found['two'][0])
    assert not torch.equal(found['one'][0], expected)
    with pytest.raises(KeyError), own_random('one'):
        raise KeyError
    with own_random('one'):
        assert not torch.equal(torch.rand(4), found['one'][0])
