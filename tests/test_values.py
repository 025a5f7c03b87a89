"""What the modules compute: the formulas, and figures that need none.

Every module is held against its formula in plain PyTorch, in float64, with
random weights and arguments. What the formula shares with the module, such
as the basis of FCA or the groups of a convolution, has a test of its own.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modules import MODULES, randomise, takes_alpha
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import mmdet_attn as ma
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.plugins.lska import SIZES

odd = st.integers(0, 4).map(lambda n: 2 * n + 1)
reduction = st.integers(1, 64)
norm_cfg = st.sampled_from(
    [None, dict(type='BN'), dict(type='GN', num_groups=1)]
)
ARGUMENTS = {
    'SE': dict(reduction=reduction, bias=st.booleans()),
    'ECA': dict(kernel_size=odd | st.none(), gamma=st.floats(0.5, 4)),
    'ECANS': dict(kernel_size=odd),
    'CBAM': dict(
        reduction=reduction,
        kernel_size=odd,
        pool_types=st.sets(
            st.sampled_from(['avg', 'max', 'lp', 'lse']), min_size=1
        ).map(sorted),
        spatial=st.booleans(),
        norm_cfg=norm_cfg,
    ),
    'BAM': dict(
        # Two hidden channels: group norm refuses a single value here, too.
        reduction=st.integers(1, 8),
        dilation=st.integers(1, 5),
        fusion=st.sampled_from(['mul', 'add']),
        norm_cfg=norm_cfg,
    ),
    'SCSE': dict(reduction=reduction, fusion=st.sampled_from(['max', 'add'])),
    'GE': dict(
        variant=st.sampled_from(['theta', 'theta_minus', 'theta_plus']),
        extent=st.sampled_from([0, 2, 4, 8]),
        norm_cfg=norm_cfg,
    ),
    'GSoP': dict(
        att_dim=st.integers(2, 40),
        stride=st.integers(1, 3),
        mode=st.sampled_from(['channel', 'position']),
        norm_cfg=norm_cfg,
    ),
    'GC': dict(
        reduction=reduction,
        pooling=st.sampled_from(['att', 'avg']),
        fusion=st.sampled_from([('add',), ('mul',), ('add', 'mul')]),
    ),
    'NonLocal': dict(
        reduction=reduction,
        mode=st.sampled_from(
            ['embedded_gaussian', 'gaussian', 'dot_product', 'concatenation']
        ),
        use_scale=st.booleans(),
        sub_sample=st.booleans(),
        norm_cfg=norm_cfg,
    ),
    'A2': dict(reduction=reduction),
    'GAM': dict(
        reduction=st.sampled_from([1, 2, 4]),
        groups=st.sampled_from([2, 4]),
        shuffle=st.booleans(),
        channel_sigmoid=st.booleans(),
        norm_cfg=norm_cfg,
    ),
    'CoordAtt': dict(
        reduction=reduction, min_channels=st.integers(1, 9), norm_cfg=norm_cfg
    ),
    'SGE': dict(groups=st.sampled_from([1, 2, 8, 16])),
    'ShuffleAttention': dict(groups=st.sampled_from([1, 2, 8])),
    'SKConv2d': dict(
        out_channels=st.sampled_from([16, 64]),
        stride=st.integers(1, 2),
        groups=st.sampled_from([1, 4, 16]),
        reduction=st.integers(1, 4),
        min_channels=st.integers(1, 40),
        norm_cfg=norm_cfg,
    ),
    'FCA': dict(
        reduction=reduction,
        dct_size=st.integers(7, 20),
        frequencies=st.sampled_from(['top16', 'low1', 'bot8', [(0, 6)]]),
    ),
    'PSAConv2d': dict(
        out_channels=st.sampled_from([16, 64]),
        stride=st.integers(1, 2),
        groups=st.just((1, 2, 4, 4)),
        reduction=st.integers(1, 4),
    ),
    'CrissCross': dict(recurrence=st.integers(1, 3)),
    'SRM': dict(norm_cfg=norm_cfg),
    'NAM': dict(norm_cfg=norm_cfg.filter(bool)),
    'GCT': dict(mode=st.sampled_from(['l2', 'l1'])),
    'SPM': dict(norm_cfg=norm_cfg),
    'SimAM': dict(lambda_=st.floats(1e-5, 1)),
    'TripletAttention': dict(kernel_size=odd, norm_cfg=norm_cfg),
    'EMA': dict(factor=st.sampled_from([1, 2, 4, 8, 16])),
    'LSKA': dict(kernel_size=st.sampled_from(sorted(SIZES))),
    'CAA': dict(kernel_size=odd),
}


def test_every_module_has_a_formula():
    assert FORMULAS.keys() == MODULES.keys() | {'PSAConv2d', 'SKConv2d'}


@pytest.mark.parametrize('name', FORMULAS)
@settings(deadline=None, max_examples=40, derandomize=True)
@given(data=st.data())
def test_formula(name, data):
    """In eval and in train mode, with arguments that hypothesis chooses."""
    cfg = {k: data.draw(s) for k, s in ARGUMENTS.get(name, {}).items()}
    channels = 16 * data.draw(st.integers(1, 3))
    # At least two: group norm and sub-sampling refuse a single value.
    height, width = data.draw(st.integers(2, 14)), data.draw(st.integers(2, 9))
    if cfg.get('extent') == 0 and cfg['variant'] != 'theta_minus':
        cfg['spatial_size'] = (height, width)
    if name in MODULES and takes_alpha(name):
        cfg['identity_init'] = True
    torch.manual_seed(0)
    module = randomise(getattr(ma, name)(channels, **cfg)).double()
    gates = [m for m in module.modules() if isinstance(m, ma.Gate)]
    with_alpha = any(gate.alpha is not None for gate in gates)
    x = torch.randn(2, channels, height, width, dtype=torch.double)
    for training, alpha in itertools.product((False, True), (0, 1)):
        module.train(training)
        for gate in gates:
            if gate.alpha is not None:
                gate.alpha.data.fill_(alpha)
        y = module(x)
        if with_alpha and not alpha:
            assert torch.equal(y, x)
            continue
        expected = FORMULAS[name](module, x)
        # The basis of FCA is kept in float32.
        rtol = 1e-6 if name == 'FCA' else 1e-9
        torch.testing.assert_close(y, expected, rtol=rtol, atol=1e-9)
        if not training:
            # A batch is as good as its images one by one.
            alone = torch.cat([module(image) for image in x.split(1)])
            torch.testing.assert_close(y, alone)


def test_fresh_gates_are_constant():
    """sigmoid(1), as the authors start; and halves of channels shuffled."""
    x, gate = torch.randn(2, 128, 5, 7), 1 / (1 + math.exp(-1))
    torch.testing.assert_close(ma.SGE(128)(x), gate * x)
    order = [c // 2 + 64 * (c % 2) for c in range(128)]
    expected = gate * x[:, order]
    torch.testing.assert_close(ma.ShuffleAttention(128)(x), expected)


@pytest.mark.parametrize('size', [(1, 1), (3, 4)])
def test_sge_of_a_constant_map(size):
    """The gate is that of the bias; the gradient is a number."""
    module = randomise(ma.SGE(8, 2))
    x = torch.ones(1, 8, *size, requires_grad=True)
    y = module(x)
    expected = module.bias.sigmoid().repeat_interleave(4, 1).expand_as(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('channels', [300, 515])
def test_pam_of_many_and_odd_channels(channels):
    module = randomise(ma.PAM(channels)).double()
    x = torch.randn(2, channels, 7, 5, dtype=torch.double)
    torch.testing.assert_close(module(x), FORMULAS['PAM'](module, x))


@pytest.mark.parametrize('shape', [(1, 8, 1, 1), (3, 37, 3, 11)])
@pytest.mark.parametrize('kernel_size', [1, 3, 9])
def test_eca_tap_by_tap(shape, kernel_size):
    module = randomise(ma.ECA(shape[1], kernel_size=kernel_size)).double()
    x = torch.randn(shape, dtype=torch.double)
    weight, means = module.conv.weight.flatten().tolist(), x.mean((2, 3))
    for n, c in itertools.product(range(shape[0]), range(shape[1])):
        omega = 0.0
        for tap, w in enumerate(weight):
            source = c + tap - kernel_size // 2
            if 0 <= source < shape[1]:
                omega += w * means[n, source].item()
        expected = x[n, c] / (1 + math.exp(-omega))
        torch.testing.assert_close(module(x)[n, c], expected)


def test_sizes_that_follow_from_the_channels():
    # At C = 128 and 2048 two odd sizes are as near; the authors round up.
    sizes = {64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}
    assert {c: ma.ECA(c).conv.kernel_size[0] for c in sizes} == sizes
    # |(log2(256) + 3) / 1| = 11
    assert ma.ECA(256, gamma=1, b=3).conv.kernel_size == (11,)
    sizes = {64: 7, 256: 56, 512: 28, 1024: 14, 2048: 7}
    assert {c: ma.FCA(c).dct_size for c in sizes} == sizes
    strides = {64: 1, 256: 2, 512: 1}
    assert {c: ma.GSoP(c).stride for c in strides} == strides
    assert ma.GSoP(256, mode='position').stride == 1
    assert ma.NonLocal(32).scale == 16**-0.5
    assert ma.NonLocal(32, use_scale=False).scale == 1
    assert ma.SE(8, reduction=16).fc1.weight.shape == (1, 8)
    assert ma.SE(64, reduction=16).fc1.weight.shape == (4, 64)
    assert ma.CoordAtt(32).conv1.out_channels == 8
    assert ma.CoordAtt(32, reduction=2).conv1.out_channels == 16


@pytest.mark.parametrize(
    ('name', 'groups'),
    [('Var2', 32), ('Var3', 1), ('GC1', 16), ('GC2', 2), ('GC3', 4)],
)
def test_se_variants_are_block_diagonal(name, groups):
    module = randomise(getattr(ma, 'SE' + name)(32)).double()
    blocks = module.conv.weight.flatten(1).chunk(groups)
    x = torch.randn(2, 32, 7, 5, dtype=torch.double)
    omega = x.mean((2, 3)) @ torch.block_diag(*blocks).T
    expected = x * omega.sigmoid()[:, :, None, None]
    torch.testing.assert_close(module(x), expected)


def test_simam_by_hand():
    """Mean 2, squares 4, 0, 0, 4, variance 8 / 3: energies of 8 / 17 more."""
    x = torch.tensor([[[[0.0, 2.0], [2.0, 4.0]]]])
    # 4 / (4 (8/3 + 1/6)) + 1/2 = 6/17 + 1/2
    ends, middle = (1 / (1 + math.exp(-e)) for e in (6 / 17 + 0.5, 0.5))
    expected = x * torch.tensor([[ends, middle], [middle, ends]])
    torch.testing.assert_close(ma.SimAM(1, lambda_=1 / 6)(x), expected)


def test_simam_behind_a_convolution():
    conv = ma.SimAMConv2d(8, 32, 3, padding=1, lambda_=0.1)
    randomise(conv).double()
    x = torch.randn(2, 8, 7, 5, dtype=torch.double)
    plain = F.conv2d(x, conv.weight, conv.bias, padding=1)
    expected = FORMULAS['SimAM'](conv.simam, plain)
    torch.testing.assert_close(conv(x), expected)


def test_scse_takes_the_larger_product():
    """Gates 1/2 and 3/4: the smaller one where x is negative."""
    module = ma.SCSE(1)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(module.conv.bias, math.log(3))
    x = torch.tensor([[[[-4.0, 4.0]]]])
    expected = torch.tensor([[[[-2.0, 3.0]]]])
    torch.testing.assert_close(module(x), expected)


def test_ema_by_hand():
    """One group of one channel: softmaxes of 1, so the gate is σ(x1 + x2)."""
    module = randomise(ma.EMA(3, factor=3)).double()
    x = torch.randn(1, 3, 5, 4, dtype=torch.double)
    a, b = module.conv1x1.weight.item(), module.conv1x1.bias.item()
    for c in range(3):
        z = x[0, c]
        rows = (a * z.mean(1, True) + b).sigmoid()
        columns = (a * z.mean(0, True) + b).sigmoid()
        x1 = z * rows * columns
        x1 = (x1 - x1.mean()) / (x1.var(correction=0) + 1e-5).sqrt()
        x1 = x1 * module.gn.weight + module.gn.bias
        x2 = module.conv3x3(z[None, None])[0, 0]
        expected = z * (x1 + x2).sigmoid()
        torch.testing.assert_close(module(x)[0, c], expected)


def test_ema_of_one_value():
    """The norm of one value is its bias; torch's own norm refuses it."""
    module = randomise(ma.EMA(2, factor=1)).double()
    assert module(torch.randn(1, 2, 1, 1).double()).isfinite().all()


@pytest.mark.parametrize('kernel_size', SIZES)
def test_lska_sees_a_square_of_its_size(kernel_size):
    """With weights of 1, a point spreads over k x k, without holes."""
    module = ma.LSKA(1, kernel_size)
    for name, parameter in module.named_parameters():
        nn.init.constant_(parameter, float(name.endswith('weight')))
    middle = 30
    x = torch.zeros(1, 1, 2 * middle + 1, 2 * middle + 1)
    x[0, 0, middle, middle] = 1
    (seen,) = module.gate(x)[0].bool()
    expected = torch.zeros_like(seen)
    side = slice(middle - kernel_size // 2, middle + kernel_size // 2 + 1)
    expected[side, side] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize('kernel_size', SIZES)
def test_lska_costs_a_line_of_its_size(kernel_size):
    """Multiplications: 2 (a + b) + C for each value, so linear in k and H W.

    A convolution of k x k would have k².
    """
    a, b, _ = SIZES[kernel_size]
    for size in ((16, 16), (32, 48)):
        with torch.device('meta'), FlopCounterMode(display=False) as counter:
            ma.LSKA(64, kernel_size).gate(torch.empty(1, 64, *size))
        values = 64 * math.prod(size)
        assert counter.get_total_flops() == 2 * values * (2 * (a + b) + 64)


# The standard deviation of the weights, as the authors' code draws them.
STARTS = {
    'PolarizedParallel': {
        'conv_q_right': (2 / 512) ** 0.5,
        'conv_v_right': (2 / 512) ** 0.5,
        'conv_q_left': (2 / 512) ** 0.5,
        'conv_v_left': (2 / 512) ** 0.5,
        # torch's own start is uniform up to 1 / sqrt(fan in).
        'conv_up': (3 * 256) ** -0.5,
    },
    'PolarizedSequential': {
        'conv_v_left': (2 / 512) ** 0.5,
        'conv_up.0': (3 * 256) ** -0.5,
        'conv_up.3': (3 * 64) ** -0.5,
    },
    'LSK': {
        'conv0': (2 / 25) ** 0.5,
        'conv_spatial': (2 / 49) ** 0.5,
        'conv1': (2 / 256) ** 0.5,
        'conv2': (2 / 256) ** 0.5,
        'conv_squeeze': (2 / 98) ** 0.5,
        'conv': (2 / 512) ** 0.5,
    },
    'LSKUnit': {
        'proj_1': (2 / 512) ** 0.5,
        'spatial_gating_unit.conv0': (2 / 25) ** 0.5,
        'proj_2': (2 / 512) ** 0.5,
    },
    'LSKA': {
        'conv0h': (2 / 5) ** 0.5,
        'conv_spatial_v': (2 / 7) ** 0.5,
        'conv1': (2 / 512) ** 0.5,
    },
    'CAA': {
        'conv1.conv': (3 * 512) ** -0.5,
        'h_conv.conv': (3 * 11) ** -0.5,
    },
    'EMA': {'conv1x1': (3 * 128) ** -0.5, 'conv3x3': (3 * 9 * 128) ** -0.5},
}


@pytest.mark.parametrize('name', STARTS)
def test_fresh_weights_are_as_wide_as_the_authors(name):
    more = {'LSKA': dict(kernel_size=23), 'EMA': dict(factor=4)}
    torch.manual_seed(0)
    module = getattr(ma, name)(512, **more.get(name, {}))
    for layer, std in STARTS[name].items():
        weight = module.get_submodule(layer).weight
        tolerance = 5 / math.sqrt(weight.numel())
        assert weight.std().item() == pytest.approx(std, rel=tolerance), layer


@pytest.mark.parametrize(
    ('name', 'ratio'),
    [
        ('EMA', 0.503),
        ('PolarizedParallel', 1.000),
        ('PolarizedSequential', 0.251),
        ('CAA', 0.500),
    ],
)
def test_fresh_module_scales_as_the_authors(name, ratio):
    """The size of the output over that of the input, at 256 channels."""
    torch.manual_seed(0)
    x = torch.randn(4, 256, 24, 24)
    with torch.no_grad():
        y = getattr(ma, name)(256).eval()(x)
    found = y.square().mean().sqrt() / x.square().mean().sqrt()
    assert found.item() == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize('channels', [3, 9, 15])
@pytest.mark.parametrize(
    'name', ['PolarizedParallel', 'PolarizedSequential', 'LSK', 'LSKUnit']
)
def test_half_of_odd_channels(name, channels):
    """Rounded down, as the authors' code does."""
    if name == 'PolarizedSequential' and channels < 8:
        channels = 11
    module = randomise(getattr(ma, name)(channels)).double()
    x = torch.randn(2, channels, 6, 5, dtype=torch.double)
    torch.testing.assert_close(module(x), FORMULAS[name](module, x))


def test_polarized_parallel_by_hand():
    """One position: both softmaxes are 1."""
    module = randomise(ma.PolarizedParallel(4)).double()
    x = torch.randn(1, 4, 1, 1, dtype=torch.double)
    z = module.conv_up.weight[:, :, 0, 0] @ module.conv_v_right(x).flatten()
    gate = z.sigmoid() + 1 / (1 + math.exp(-1))
    torch.testing.assert_close(module.gate(x).flatten(), gate)


@pytest.mark.parametrize(
    ('name', 'convolutions'),
    [('PolarizedParallel', 0), ('PolarizedSequential', 1)],
)
def test_polarized_has_few_convolutions_of_the_map(name, convolutions):
    """Multiplications for each value; the formula has 3 convolutions."""
    counts = []
    with torch.device('meta'):
        module, x = getattr(ma, name)(256), torch.empty(1, 256, 50, 80)
        for function in (module, lambda x: FORMULAS[name](module, x)):
            with FlopCounterMode(display=False) as counter:
                function(x)
            counts.append(counter.get_total_flops() / 2 / x.numel())
    assert counts[0] == pytest.approx(3 + 128 * convolutions, abs=1)
    assert counts[1] == pytest.approx(1 + 128 * 3, abs=1)


def test_caa_counts_the_padding():
    """The corner of a map of ones has 16 of 49 values, the middle all."""
    module = ma.CAA(1, 1)
    for name, parameter in module.named_parameters():
        nn.init.constant_(parameter, float(name.endswith('weight')))
    gate = module.gate(torch.ones(1, 1, 7, 7))[0, 0].logit()
    assert gate[0, 0].item() == pytest.approx(16 / 49, abs=1e-6)
    assert gate[3, 3].item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('frequencies', ['top16', 'low4', 'bot2', [(3, 5)]])
@pytest.mark.parametrize('dct_size', [7, 14])
def test_fca_basis(frequencies, dct_size):
    """The cosines one by one, at the authors' frequencies."""
    given = {
        'top16': zip(
            [0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2],
            [0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2],
            strict=True,
        ),
        'low4': [(0, 0), (0, 1), (1, 0), (1, 1)],
        'bot2': [(6, 6), (1, 4)],
    }
    pairs = frequencies
    if isinstance(frequencies, str):
        pairs = list(given[frequencies])

    def basis(f, t):
        f = f * (dct_size // 7)
        value = math.cos(math.pi * f * (t + 0.5) / dct_size)
        return value / math.sqrt(dct_size) * (math.sqrt(2) if f else 1)

    module = ma.FCA(32, 4, dct_size=dct_size, frequencies=frequencies)
    for found, index in ((module.u, 0), (module.v, 1)):
        numbers = [pair[index] for pair in pairs]
        expected = [[basis(f, t) for t in range(dct_size)] for f in numbers]
        torch.testing.assert_close(found, torch.tensor(expected))
