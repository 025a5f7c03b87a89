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
from torch.nn import functional as F

import mmdet_attn as ma
from mmdet_attn.cost.formulas import FORMULAS

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
}


def test_every_module_has_a_formula():
    assert FORMULAS.keys() == MODULES.keys() | {'PSAConv2d'}


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
    with_alpha = name in MODULES and takes_alpha(name)
    if with_alpha:
        cfg['identity_init'] = True
    torch.manual_seed(0)
    module = randomise(getattr(ma, name)(channels, **cfg)).double()
    gates = [m for m in module.modules() if isinstance(m, ma.Gate)]
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
    assert {c: ma.GSoP(c).reduce.stride[0] for c in strides} == strides
    assert ma.GSoP(256, mode='position').reduce.stride == (1, 1)
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
