"""What every attention module that mmdet_attn exports must do."""

import copy
import inspect

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmdet_attn
from mmdet_attn import Attention, Gate

MODULES = {
    name: value
    for name, value in vars(mmdet_attn).items()
    if inspect.isclass(value)
    and issubclass(value, Attention)
    and not inspect.isabstract(value)
    and value is not Attention
}
GATES = [name for name, cls in MODULES.items() if issubclass(cls, Gate)]
every = pytest.mark.parametrize('name', MODULES)
every_gate = pytest.mark.parametrize('name', GATES)


def build(name, channels=32, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(
        dict(type=f'mmdet_attn.{name}', in_channels=channels, **kwargs)
    )


def test_all_are_found():
    assert {'ECA', 'SE'} <= set(MODULES)
    assert set(MODULES) <= set(mmdet_attn.__all__)


@every
@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmseg'])
def test_builds_as_a_plugin(name, scope):
    """By dotted name, from any scope, without custom_imports."""
    from mmcv.cnn import build_plugin_layer

    cfg = dict(type=f'mmdet_attn.{name}')
    if scope is None:
        key, layer = build_plugin_layer(cfg, in_channels=32, postfix='_x')
    else:
        with DefaultScope.overwrite_default_scope(scope):
            key, layer = build_plugin_layer(cfg, in_channels=32, postfix='_x')
    assert key == name.lower() + '_x'
    assert type(layer) is MODULES[name]


@every
def test_own_name_and_file(name):
    """Class, attribute and file share one word; none is inherited."""
    cls = MODULES[name]
    assert cls.__dict__['_abbr_'] == name.lower()
    assert cls.__module__.split('.')[-1] == name.lower()
    assert 'arxiv.org' in inspect.getmodule(cls).__doc__
    assert '.. math::' in cls.__doc__
    first, *rest = list(inspect.signature(cls).parameters.values())
    assert first.name == 'in_channels'
    assert all(p.default is not p.empty for p in rest)


@every
@pytest.mark.parametrize(
    'shape', [(2, 32, 7, 5), (1, 32, 1, 1), (0, 32, 4, 4)]
)
@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float64, torch.bfloat16]
)
@pytest.mark.parametrize(
    'memory_format', [torch.contiguous_format, torch.channels_last]
)
def test_keeps_shape_dtype_and_layout(name, shape, dtype, memory_format):
    module = build(name).to(dtype)
    x = torch.randn(shape).to(dtype).to(memory_format=memory_format)
    before = x.clone()
    y = module(x)
    assert y.shape == x.shape
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    assert torch.equal(x, before)
    if x.numel():
        assert y.isfinite().all()


@every
def test_gradients_reach_everything(name):
    module = build(name).train()
    # Channels whose means differ, or a ReLU behind the mean may sleep.
    x = torch.randn(8, 32, 6, 7) + torch.randn(8, 32, 1, 1)
    x.requires_grad_()
    module(x).square().sum().backward()
    for parameter in [x, *module.parameters()]:
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@every
def test_gradcheck(name):
    module = build(name, 8).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(module, x)


@every
def test_compiles_without_breaks(name):
    module = build(name)
    x = torch.randn(2, 32, 6, 7)
    compiled = torch.compile(module, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(x), module(x))


@every
def test_autocast_is_finite(name):
    module = build(name, **identity(name))
    with torch.autocast('cpu', torch.bfloat16):
        y = module(torch.randn(2, 32, 6, 7) * 100)
    assert y.isfinite().all()


@every
def test_state_dict_and_copies(name):
    module, other = build(name), MODULES[name](32)
    x = torch.randn(2, 32, 6, 7)
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(x), other(x))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(module(x), other(x))


@every
def test_initialisation_survives_the_host(name):
    """A Kaiming pass over all layers, then init_weights, as ResNet does."""
    module = build(name)
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.constant_(layer.weight, 7)
    module.init_weights()
    assert all((p != 7).any() for p in module.parameters())
    torch.manual_seed(1)
    module.init_weights()
    again = [p.clone() for p in module.parameters()]
    torch.manual_seed(1)
    module.init_weights()
    for first, second in zip(again, module.parameters(), strict=True):
        assert torch.equal(first, second)


def identity(name):
    return {'identity_init': True} if name in GATES else {}


@every_gate
def test_gate_broadcasts(name):
    module = build(name)
    x = torch.randn(2, 32, 6, 7)
    gate = module.gate(x)
    assert torch.broadcast_shapes(gate.shape, x.shape) == x.shape
    assert torch.equal(module(x), x * gate)


@every_gate
def test_identity_start(name):
    """Not one bit changes, in any dtype; and the module can leave it."""
    module = build(name, identity_init=True)
    plain = build(name)
    count = sum(p.numel() for p in module.parameters())
    assert count == sum(p.numel() for p in plain.parameters()) + 1
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.randn(2, 32, 6, 7).to(dtype)
        assert torch.equal(module.to(dtype)(x), x)
    x = torch.randn(2, 32, 6, 7)
    module.float()(x).square().sum().backward()
    assert module.alpha.grad != 0


@every_gate
def test_paper_weights_switch_the_gate_on(name):
    """Weights without alpha are the paper's module: alpha becomes 1."""
    paper, module = build(name), build(name, identity_init=True)
    module.load_state_dict(paper.state_dict())
    x = torch.randn(2, 32, 6, 7)
    assert module.alpha == 1
    assert torch.equal(module(x), paper(x))
    # As part of a network, and with an alpha of its own, too.
    net = nn.Sequential(build(name, identity_init=True))
    with torch.no_grad():
        module.alpha.fill_(0.5)
    net.load_state_dict({f'0.{k}': v for k, v in module.state_dict().items()})
    assert net[0].alpha == 0.5


@every
@pytest.mark.parametrize('value', [0, -3, 2.0, '8', True, None])
def test_bad_channels(name, value):
    with pytest.raises(ValueError, match=f'{name}: in_channels .*{value}'):
        MODULES[name](value)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='ECA', kernel_size=4), 'kernel_size must be odd, got 4'),
        (dict(type='ECA', kernel_size=0), 'kernel_size must be a positive'),
        (dict(type='ECA', kernel_size=3.0), 'integer, got 3.0'),
        (dict(type='ECA', gamma=0), 'gamma must be positive, got 0'),
        (dict(type='SE', reduction=0), 'reduction must be a positive .* 0'),
    ],
)
def test_bad_arguments(cfg, message):
    cfg = dict(cfg, type='mmdet_attn.' + cfg['type'], in_channels=32)
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)
