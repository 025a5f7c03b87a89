"""What every attention module that mmdet_attn exports must do."""

import copy
import importlib
import inspect
import pickle
import pkgutil
import re
from contextlib import nullcontext

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from modules import (
    FORMS,
    MODULES,
    build,
    build_identity,
    every,
    every_form,
    every_identity,
    every_switched,
    randomise,
    takes_alpha,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmdet_attn
from mmdet_attn import Attention, Gate
from mmdet_attn.errors import InputError

# A keyword of Python cannot be imported, a family shares a file.
FILES = {
    'NonLocal': 'non_local',
    'LSKUnit': 'lsk',
    'PolarizedParallel': 'polarized',
    'PolarizedSequential': 'polarized',
} | {f'SE{kind}{n}': 'sevariants' for kind in ('Var', 'GC') for n in (1, 2, 3)}
GN = dict(type='GN', num_groups=1)
BARE = dict(type='BN', affine=False)
# Their batch norm sees one value for each image, whatever its size.
POOLS_TO_ONE = ('BAM', 'SRM')
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def has_batch_norm(module):
    return any(isinstance(m, _BatchNorm) for m in module.modules())


def test_all_are_found():
    """Every class that a file of the plugins registers is exported."""
    for file in pkgutil.iter_modules(mmdet_attn.plugins.__path__):
        importlib.import_module(f'mmdet_attn.plugins.{file.name}')
    registered = {
        name
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith('mmdet_attn.plugins.')
    }
    assert {'ECA', 'SE', 'CBAM', 'NonLocal'} <= set(MODULES) <= registered
    assert registered <= set(mmdet_attn.__all__)


@every
@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmseg'])
def test_builds_as_a_plugin(name, scope):
    """By dotted name, from any scope, without custom_imports."""
    from mmcv.cnn import build_plugin_layer

    cfg = FORMS[name] | dict(type=f'mmdet_attn.{name}')
    where = nullcontext()
    if scope:
        where = DefaultScope.overwrite_default_scope(scope)
    with where:
        key, layer = build_plugin_layer(cfg, in_channels=128, postfix='_x')
    assert key == MODULES[name]._abbr_ + '_x'
    assert type(layer) is MODULES[name]


@every
def test_own_name_and_file(name):
    """Class, attribute and file share one word; none is inherited."""
    cls = MODULES[name]
    file = cls.__module__.split('.')[-1]
    assert file == FILES.get(name, name.lower())
    abbreviation = 'non_local' if name == 'NonLocal' else name.lower()
    assert cls.__dict__['_abbr_'] == abbreviation
    sections = re.findall(r'^(\w+):$', inspect.getdoc(cls), re.MULTILINE)
    assert sections == ['Args', 'Raises', 'Placement', 'Evidence', 'Source']
    first, *rest = list(inspect.signature(cls).parameters.values())
    assert first.name == 'in_channels'
    needed = [p.name for p in rest if p.default is p.empty]
    assert needed == (['kernel_size'] if name == 'LSKA' else [])
    assert all(f'{p.name}:' in cls.__doc__ for p in (first, *rest))


@every_form
@pytest.mark.parametrize(
    'shape', [(2, 32, 7, 5), (3, 32, 1, 6), (1, 32, 1, 1), (0, 32, 4, 4)]
)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(
    'memory_format', [torch.contiguous_format, torch.channels_last]
)
def test_keeps_shape_dtype_and_layout(name, shape, dtype, memory_format):
    module = build_identity(name).to(dtype)
    x = torch.randn(shape).to(dtype).to(memory_format=memory_format)
    before = x.clone()
    for training in (True, False):
        module.train(training)
        if training and shape == (1, 32, 1, 1) and has_batch_norm(module):
            continue  # see test_batch_norm_of_one_value
        if name == 'SRM' and shape == (1, 32, 1, 1):
            continue  # see test_srm_of_one_pixel
        y = module(x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert torch.equal(x, before)
        if x.numel():
            assert y.is_contiguous(memory_format=memory_format)
            assert y.isfinite().all()


@pytest.mark.parametrize(
    'name', ['BAM', 'CBAM', 'GSoP', 'NAM', 'SPM', 'SRM', 'TripletAttention']
)
def test_batch_norm_of_one_value(name):
    """Refused in training with the sizes and two ways out; both work."""
    x = torch.randn((1, 32, 9, 8) if name in POOLS_TO_ONE else (1, 32, 1, 1))
    with pytest.raises(ValueError, match=r'BN: .* \(1, \d+, 1, 1\): use a'):
        build(name)(x)
    assert build(name)(torch.cat([x, x])).isfinite().all()
    group_norm = build(name, norm_cfg=GN)
    assert group_norm(torch.randn(1, 32, 2, 2)).isfinite().all()


def test_selective_kernel_on_one_value():
    """Its hidden channels have one each, whatever the size of the map."""
    x = torch.randn(1, 32, 9, 8)
    with pytest.raises(InputError, match=r'BN: .* \(1, 32, 1, 1\): use a'):
        mmdet_attn.SKConv2d(32, 64)(x)
    assert mmdet_attn.SKConv2d(32, 64).eval()(x).isfinite().all()
    module = mmdet_attn.SKConv2d(32, 64, norm_cfg=GN)
    assert not has_batch_norm(module)
    assert module(x).isfinite().all()
    assert mmdet_attn.SKConv2d(32, 64, norm_cfg=None)(x).isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_selective_kernel_in_half_precision(dtype):
    module = mmdet_attn.SKConv2d(32, 64)
    x = torch.randn(2, 32, 16, 17) * 100
    with torch.autocast('cpu', dtype):
        assert module(x).isfinite().all()


def test_selective_kernel_starts_as_the_authors():
    """Also after the Kaiming pass of a host, which knows no `fc`."""
    torch.manual_seed(0)
    module = mmdet_attn.SKConv2d(256, 256, norm_cfg=dict(type='BN'))
    for parameter in module.parameters():
        nn.init.constant_(parameter, 7)
    module.init_weights()
    for conv in module.convs:  # 8 input channels in a group
        assert abs(conv.weight.std() / (2 / 72) ** 0.5 - 1) < 0.02
    for fc in (module.fc1, module.fc2):
        assert abs(fc.weight.std() / 0.01 - 1) < 0.05
    for norm in (*module.norms, module.norm):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


@every
def test_every_norm_can_be_changed(name):
    if not has_batch_norm(build(name)):
        parameters = inspect.signature(MODULES[name]).parameters
        assert 'norm_cfg' not in parameters or name == 'NonLocal'
        return
    module = build(name, norm_cfg=GN)
    assert not has_batch_norm(module)
    assert any(isinstance(m, nn.GroupNorm) for m in module.modules())
    module = build(name, norm_cfg=dict(type='SyncBN', requires_grad=False))
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    assert all(type(m) is nn.SyncBatchNorm for m in norms)
    assert not any(m.weight.requires_grad for m in norms)
    if name == 'NAM':
        with pytest.raises(InputError, match='norm with a scale, got None'):
            build(name, norm_cfg=None)
        return
    none = build(name, norm_cfg=None)
    assert not has_batch_norm(none)
    assert none(torch.randn(2, 32, 6, 5)).shape == (2, 32, 6, 5)


@every_form
def test_gradients_reach_everything(name):
    module = randomise(build_identity(name)).train()
    # Channels whose means differ, or a ReLU behind the mean may sleep.
    x = torch.randn(8, 32, 6, 7) + torch.randn(8, 32, 1, 1)
    x.requires_grad_()
    module(x).pow(3).sum().backward()
    for parameter in [x, *module.parameters()]:
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@every_form
def test_gradcheck(name):
    module = randomise(build_identity(name, 16)).double()
    x = torch.randn(2, 16, 3, 4, dtype=torch.double, requires_grad=True)
    # The weights that NAM makes of its scale have no gradient.
    parameters = [
        p
        for key, p in module.named_parameters()
        if p.numel() < 600 and (name, key) != ('NAM', 'norm.weight')
    ]

    def run(x, *_):
        return module(x)

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@every_form
def test_compiles_without_breaks(name):
    module = randomise(build_identity(name))
    x = torch.randn(2, 32, 6, 7)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), module(x))


@every_form
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_finite(name, dtype):
    """Large values under autocast, as activations of a network that has it.

    Sums of their squares do not fit into float16.
    """
    module = build(name)
    # The output of these grows as the square or the cube of the input.
    large = 10 if name.startswith('LSK') else 100
    for x in (torch.randn(2, 32, 16, 17) * large, torch.randn(2, 32, 6, 7)):
        for y in (x, x.to(dtype)):
            with torch.autocast('cpu', dtype):
                z = module(y)
            assert z.dtype == y.dtype
            assert z.isfinite().all()


@every_form
def test_state_dict_and_copies(name):
    module, other = randomise(build_identity(name)), build_identity(name)
    x = torch.randn(2, 32, 6, 7)
    other.load_state_dict(module.state_dict())
    module.eval(), other.eval()
    expected = module(x)
    assert torch.equal(expected, other(x))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(module(x), expected)
    if next(module.parameters(), None) is not None:
        assert not torch.equal(twin(x), expected)


# Where the authors start biases at zero: the layers that have them.
ZERO_BIASES = {
    'A2': {'out'},
    'BAM': {'channel.0', 'channel.3', 'spatial.0', 'spatial.9'},
    'CBAM': {'channel.fc1', 'channel.fc2'},
    'CoordAtt': {'conv1', 'conv_h', 'conv_w'},
    'GC': {'conv_mask', 'channel_add_conv.3'},
    'GE-plus': {'excite.1', 'excite.3'},
    'CAA': {'conv1.conv', 'h_conv.conv', 'v_conv.conv', 'conv2.conv'},
    'LSK': {'conv0', 'conv_spatial', 'conv1', 'conv2', 'conv_squeeze', 'conv'},
    'LSKA': {'conv0h', 'conv0v', 'conv_spatial_h', 'conv_spatial_v', 'conv1'},
    'LSKUnit': {'proj_1', 'spatial_gating_unit.conv', 'proj_2'},
    'NonLocal': {'g', 'theta', 'phi', 'out'},
}


@every_form
def test_initialisation_survives_the_host(name):
    """A Kaiming pass over all layers, then init_weights, as ResNet does."""
    module, fresh = build_identity(name), build_identity(name)
    for parameter in module.parameters():
        nn.init.constant_(parameter, 7)
    for each in (module, fresh):
        torch.manual_seed(0)
        each.init_weights()
    for first, second in zip(
        module.parameters(), fresh.parameters(), strict=True
    ):
        assert (first != 7).all()
        assert torch.equal(first, second)
    for each in (module, build(name)):
        for path in ZERO_BIASES.get(name, ()):
            assert not each.get_submodule(path).bias.any(), path


# What these two do to the product: alpha blends it with the input.
AFTER_PRODUCT = {
    'GSoP-position': torch.relu,
    'ShuffleAttention': lambda y: nn.functional.channel_shuffle(y, 2),
}


@every_form
@pytest.mark.parametrize('alpha', [None, 0.0, 0.3, 1.0])
def test_factor_multiplies(name, alpha):
    """By 1 + alpha (g - 1); also the gates inside a composition."""
    module = (build if alpha is None else build_identity)(name)
    runs = []
    for gate in randomise(module).eval().modules():
        if isinstance(gate, Gate):
            gate.register_forward_hook(lambda *run: runs.append(run))
            if gate.alpha is not None:
                nn.init.constant_(gate.alpha, alpha)
    with torch.no_grad():
        module(torch.randn(2, 32, 6, 7))
        for gate, (x,), y in runs.copy():
            f, g = gate.factor(x), gate.gate(x)
            scale = 1.0 if gate.alpha is None else alpha
            torch.testing.assert_close(f, 1 + scale * (g - 1))
            assert torch.broadcast_shapes(f.shape, x.shape) == x.shape
            if after := AFTER_PRODUCT.get(name):
                assert torch.allclose(y, x.lerp(after(x * g), scale))
            else:
                assert torch.equal(y, x * f)


@every_identity
def test_identity_start(name):
    """Not one bit changes, in any dtype; and the module can leave it."""
    module, plain = build_identity(name), build(name)
    # GCT has an alpha of its own, for each channel.
    gates = [
        m
        for m in module.modules()
        if getattr(m, 'alpha', None) is not None and m.alpha.dim() == 0
    ]
    count = sum(p.numel() for p in module.parameters())
    assert count == sum(p.numel() for p in plain.parameters()) + len(gates)
    assert takes_alpha(name) == bool(gates) or name == 'LSKUnit'
    for training in (True, False):
        for dtype in DTYPES:
            x = torch.randn(2, 32, 6, 7).to(dtype)
            assert torch.equal(module.to(dtype).train(training)(x), x)
    x = torch.randn(2, 32, 6, 7)
    # What decides whether a plugin without weights is acceptable.
    assert module.starts_as_identity
    assert plain.starts_as_identity == torch.equal(plain(x), x)
    module.float().train()(x).pow(3).sum().backward()
    assert all(gate.alpha.grad != 0 for gate in gates)
    assert gates or any(p.grad.any() for p in module.parameters())


HOST = dict(type='mmdet.ResNet', depth=50, base_channels=16, stem_channels=16)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A plain ResNet, and its weights in a file."""
    torch.manual_seed(0)
    network = MODELS.build(HOST)
    network.init_weights()
    file = tmp_path_factory.mktemp('plain') / 'plain.pth'
    torch.save(network.state_dict(), file)
    network.eval()
    return network, str(file)


@every_identity
@pytest.mark.parametrize('pretrained', [False, True])
def test_identity_start_in_a_host(name, pretrained, plain):
    """ResNet with the module in every block, after its own init_weights."""
    network, file = plain
    cfg = FORMS[name] | dict(type='mmdet_attn.' + FORMS[name]['type'])
    if takes_alpha(name):
        cfg['identity_init'] = True
    plugins = [dict(cfg=cfg, position='after_conv3')]
    init_cfg = dict(type='Pretrained', checkpoint=file) if pretrained else None
    host = MODELS.build(HOST | dict(plugins=plugins, init_cfg=init_cfg))
    host.init_weights()
    if not pretrained:
        keys = host.load_state_dict(network.state_dict(), strict=False)
        assert not keys.unexpected_keys
    x = torch.randn(1, 3, 65, 33)
    host.eval()
    with torch.no_grad():
        for ours, theirs in zip(host(x), network(x), strict=True):
            assert torch.equal(ours, theirs)


@every_switched
def test_paper_weights_switch_the_gate_on(name):
    """Weights without alpha are the paper's module: alpha becomes 1."""
    paper, module = randomise(build(name)), build_identity(name)
    module.load_state_dict(paper.state_dict())
    gates = [m for m in module.modules() if isinstance(m, Gate)]
    x = torch.randn(2, 32, 6, 7)
    assert all(gate.alpha == 1 for gate in gates)
    torch.testing.assert_close(module.eval()(x), paper.eval()(x))
    # As part of a network, and with an alpha of its own, too.
    net = nn.Sequential(build_identity(name))
    with torch.no_grad():
        gates[0].alpha.fill_(0.5)
    net.load_state_dict({f'0.{k}': v for k, v in module.state_dict().items()})
    kept = [m.alpha for m in net.modules() if isinstance(m, Gate)]
    assert [a.item() for a in kept] == [0.5] + [1] * (len(gates) - 1)


@every
@pytest.mark.parametrize('value', [0, -3, 2.0, '8', True, None])
def test_bad_channels(name, value):
    with pytest.raises(ValueError, match=f'{name}: in_channels .*{value}'):
        build(name, value)


@pytest.mark.parametrize(
    ('name', 'cfg', 'message'),
    [
        ('ECA', dict(kernel_size=4), 'ECA: kernel_size must be odd, got 4'),
        ('ECA', dict(kernel_size=0), 'kernel_size must be a positive'),
        ('ECA', dict(kernel_size=3.0), 'integer, got 3.0'),
        ('ECA', dict(gamma=0), 'gamma must be positive, got 0'),
        ('ECA', dict(gamma=float('inf')), 'gamma must be finite, got inf'),
        ('ECA', dict(b=float('nan')), 'ECA: b must be finite, got nan'),
        ('ECA', dict(gamma=5e-324), 'is at most 65 with b=1, got 5e-324'),
        ('ECANS', dict(kernel_size=2), 'kernel_size must be odd, got 2'),
        ('SE', dict(reduction=0), 'reduction must be a positive .* 0'),
        ('SEGC1', dict(in_channels=24), 'a multiple of 16, got 24'),
        ('SEGC2', dict(in_channels=24), 'a multiple of 16, got 24'),
        ('SEGC3', dict(in_channels=12), 'a multiple of 8, got 12'),
        ('CBAM', dict(kernel_size=4), 'CBAM: kernel_size .* odd, got 4'),
        ('CBAM', dict(reduction=-1), 'CBAM: reduction .* got -1'),
        ('CBAM', dict(pool_types=('std',)), "'lp', 'lse', got .*'std'"),
        ('CBAM', dict(pool_types='avg'), "pool_types .* got 'avg'"),
        ('CBAM', dict(pool_types=()), r'pool_types .* got \(\)'),
        ('CBAM', dict(norm_cfg=dict(type='LN')), "SyncBN, GN, got 'LN'"),
        ('CBAM', dict(norm_cfg=GN | dict(num_groups=2)), 'its 1 channels: '),
        ('GAM', dict(norm_cfg=dict(type='BN', foo=1)), "'foo'"),
        *(
            ('CBAM', dict(norm_cfg=cfg), f'CBAM: norm_cfg .*{message}')
            for cfg, message in (
                (GN | dict(num_groups=True), 'num_groups is True'),
                (GN | dict(num_groups=0), 'num_groups is 0'),
                (dict(type='BN', eps=float('nan')), 'eps is nan, not'),
                (dict(type='BN', eps=0), 'eps is 0, not positive'),
                (dict(type='BN', momentum=-1), 'momentum is -1, negative or'),
                (dict(type='BN', requires_grad=0), 'must be bool'),
            )
        ),
        ('BAM', dict(fusion='max'), "'mul', 'add', got 'max'"),
        ('BAM', dict(dilation=0), 'dilation must be a positive'),
        ('SCSE', dict(fusion='mul'), "'max', 'add', got 'mul'"),
        ('GE', dict(variant='theta-'), "'theta_minus', .* got 'theta-'"),
        ('GE', dict(extent=3), 'extent must be 0 or a power .* got 3'),
        ('GE', dict(extent=1), 'extent must be 0 or a power .* got 1'),
        ('GE', dict(extent=0), 'spatial_size must be given .* got None'),
        ('GE', dict(spatial_size=7), 'spatial_size must be None .* got 7'),
        ('GE', dict(extent=0, spatial_size=(7, 0)), 'integer, got 0'),
        ('GSoP', dict(mode='both'), "'position', got 'both'"),
        ('GSoP', dict(stride=0), 'stride must be a positive'),
        ('GC', dict(fusion='add'), "GC: fusion .* got 'add'"),
        ('GC', dict(fusion=('sub',)), 'GC: fusion .*sub'),
        ('GC', dict(pooling='max'), "'att', 'avg', got 'max'"),
        ('NonLocal', dict(mode='dot'), "'concatenation', got 'dot'"),
        ('A2', dict(reduction=0), 'A2: reduction'),
        ('CrissCross', dict(in_channels=7), 'must be at least 8, got 7'),
        ('CrissCross', dict(recurrence=0), 'recurrence must be .* got 0'),
        ('GCT', dict(mode='l3'), "GCT: mode .* 'l2', 'l1', got 'l3'"),
        ('NAM', dict(norm_cfg=BARE), 'NAM: norm_cfg .* a scale, got .*BN'),
        ('SRM', dict(norm_cfg=dict(type='LN')), "SyncBN, GN, got 'LN'"),
        ('SPM', dict(norm_cfg=dict(type='LN')), "SyncBN, GN, got 'LN'"),
        ('GAM', dict(groups=3), 'a divisor of 32 and 2 channels, got 3'),
        ('GAM', dict(shuffle=True), 'groups must be above 1 .* got 1'),
        ('CoordAtt', dict(min_channels=0), 'min_channels'),
        ('FCA', dict(in_channels=24), 'a multiple of its 16 .* got 24'),
        ('FCA', dict(dct_size=6), 'dct_size must be at least 7, got 6'),
        ('FCA', dict(frequencies='top3'), "'low16', .* got 'top3'"),
        ('FCA', dict(frequencies=[(0, 7)]), 'pairs of integers'),
        ('SimAM', dict(lambda_=0), 'lambda_ must be positive, got 0'),
        ('SimAM', dict(lambda_=float('inf')), 'lambda_ must be finite'),
        ('TripletAttention', dict(kernel_size=2), 'must be odd, got 2'),
        ('SGE', dict(groups=5), 'a divisor of 32 channels, got 5'),
        ('SGE', {}, 'a divisor of 32 channels, got 64'),
        ('SGE', dict(groups=0), 'groups must be a positive integer, got 0'),
        ('ShuffleAttention', {}, '2 x groups divides 32 channels, got 64'),
        *(
            ('ShuffleAttention', dict(in_channels=c), f'divides {c} channels')
            for c in (64, 192, 320)
        ),
        ('ShuffleAttention', dict(groups=32), 'divides 32 channels, got 32'),
        ('SKConv2d', dict(groups=3), '32 input and 64 output .* got 3'),
        ('SKConv2d', dict(out_channels=48), '48 output channels, got 32'),
        ('SKConv2d', dict(out_channels=0), 'out_channels .* got 0'),
        ('SKConv2d', dict(kernel_size=5), 'kernel_size must be 3, got 5'),
        ('SKConv2d', dict(dilation=2), 'dilation must be 1, got 2'),
        ('SKConv2d', dict(padding=2), 'padding must be 1, got 2'),
        ('SKConv2d', dict(bias=True), 'bias must be False, got True'),
        ('SKConv2d', dict(min_channels=0), 'min_channels .* got 0'),
        ('SKConv2d', dict(norm_cfg=dict(type='LN')), "GN, got 'LN'"),
        ('EMA', dict(factor=0), 'EMA: factor must be a positive .* 0'),
        ('EMA', dict(factor=64), 'a divisor of 32 channels, got 64'),
        ('EMA', dict(factor=5), 'a divisor of 32 channels, got 5'),
        ('PolarizedParallel', dict(in_channels=1), 'at least 2, got 1'),
        ('PolarizedSequential', dict(in_channels=7), 'at least 8, got 7'),
        ('LSK', dict(in_channels=1), 'LSK: in_channels .* least 2, got 1'),
        ('LSKUnit', dict(in_channels=1), 'LSKUnit: .* at least 2, got 1'),
        ('LSKA', dict(kernel_size=9), 'one of 7, 11, 23, 35, 41, 53, got 9'),
        ('LSKA', dict(kernel_size=7.0), 'a positive integer, got 7.0'),
        ('LSKA', dict(kernel_size=None), 'kernel_size .* got None'),
        ('CAA', dict(kernel_size=10), 'CAA: kernel_size .* odd, got 10'),
        ('PSAConv2d', dict(out_channels=30), 'groups must be 4 divisors'),
        ('PSAConv2d', dict(out_channels=0), 'out_channels .* got 0'),
        ('PSAConv2d', dict(dilation=2), 'dilation must be 1, got 2'),
        ('PSAConv2d', dict(kernel_sizes=(3, 4)), r'odd, got \(3, 4\)'),
    ],
)
def test_bad_arguments(name, cfg, message):
    cfg = dict(type=f'mmdet_attn.{name}', in_channels=32) | cfg
    if name in ('PSAConv2d', 'SKConv2d'):
        cfg = dict(out_channels=64) | cfg
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_global_gather_excite_names_the_sizes():
    module = build('GE', extent=0, spatial_size=(7, 5))
    assert module(torch.randn(2, 32, 7, 5)).shape == (2, 32, 7, 5)
    message = r'spatial_size \(7, 5\), got \(5, 7\): .* extent=2'
    with pytest.raises(ValueError, match=message):
        module(torch.randn(2, 32, 5, 7))


def test_srm_of_one_pixel():
    """Its variance is 0 / 0. Refused in training and in evaluation."""
    for training in (True, False):
        module = build('SRM').train(training)
        with pytest.raises(InputError, match=r'SRM: .* \(2, 32, 1, 1\): use'):
            module(torch.randn(2, 32, 1, 1))
        assert module(torch.randn(2, 32, 1, 2)).isfinite().all()


@pytest.mark.parametrize(
    ('shown', 'given'),
    [
        ('ECA(64)', None),
        ('ECA(64, kernel_size=3, identity_init=True)', None),
        ('SE(64)', 'SE(in_channels=64, reduction=16)'),
        ('SEVar2(64, identity_init=True)', 'SEVar2(64, True)'),
        ('CBAM(64, norm_cfg=None)', None),
        ('LSKA(64, kernel_size=7)', 'LSKA(64, 7)'),
        ('PSAConv2d(64, out_channels=64, stride=2)', None),
        ('SKConv2d(64, out_channels=64, stride=2)', None),
        ('SGE(64, groups=8)', None),
        (
            'SimAMConv2d(3, 64, 3, lambda_=0.1, padding=1)',
            'SimAMConv2d(3, 64, 3, padding=1, lambda_=0.1)',
        ),
    ],
)
def test_repr_is_how_it_was_built(shown, given):
    module = eval(given or shown, vars(mmdet_attn.plugins))
    assert repr(module) == shown
    assert repr(copy.deepcopy(module)) == shown
    assert repr(pickle.loads(pickle.dumps(module))) == shown
    assert f'(0): {shown}\n' in repr(nn.Sequential(module))


@pytest.mark.parametrize('base', [Attention, Gate])
def test_base_classes_are_not_modules(base):
    with pytest.raises(TypeError, match='abstract'):
        base(32)


@pytest.mark.parametrize(
    ('name', 'cfg'),
    [
        ('ECA', dict(gamma=None)),
        ('SimAM', dict(lambda_='0.1')),
        ('GC', dict(fusion=1)),
        ('FCA', dict(frequencies=2.5)),
        ('CBAM', dict(norm_cfg='BN')),
        ('PSAConv2d', dict(out_channels=64, groups=None)),
    ],
)
def test_argument_of_another_type(name, cfg):
    """Found by make fuzz: the message names the module and the argument."""
    argument = list(cfg)[-1]
    with pytest.raises(InputError, match=f'^{name}: .*{argument}'):
        getattr(mmdet_attn, name)(32, **cfg)


def test_unknown_argument_stays_a_type_error():
    with pytest.raises(TypeError, match='kernel_sice'):
        mmdet_attn.ECA(32, kernel_sice=3)
