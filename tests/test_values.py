"""What the modules compute: the formulas, and figures that need none.

Every form of every module is held against its formula in plain PyTorch, in
float64, with random weights. What the formula shares with the module, such as
the basis of FCA or the groups of a convolution, has a test of its own.
"""

import itertools
import math

import pytest
import torch
from modules import MODULES, randomise
from torch.nn import functional as F

import mmdet_attn as ma
from mmdet_attn.cost.formulas import FORMULAS

SHAPES = [(2, 32, 7, 5), (1, 32, 14, 9)]
BN = dict(type='BN')


def options(**choices):
    """All combinations, as dictionaries."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


# The arguments that change what a module computes, where there are any.
FORMS = {
    'A2': options(reduction=[2, 4]),
    'BAM': options(fusion=['mul', 'add'], dilation=[1, 2], reduction=[8]),
    'CBAM': [
        *options(
            pool_types=[('avg', 'max'), ('lp',), ('max', 'lse', 'lp', 'avg')],
            spatial=[True, False],
            reduction=[4],
        ),
        dict(kernel_size=5),
    ],
    'CoordAtt': options(reduction=[2, 32]),
    'ECA': options(kernel_size=[None, 1, 3, 5, 9]),
    'ECANS': options(kernel_size=[1, 3, 7]),
    'FCA': options(frequencies=['top16', 'low4', [(3, 5)]], dct_size=[7, 14]),
    'GAM': [
        dict(reduction=4),
        dict(reduction=4, groups=4, shuffle=True),
        dict(reduction=4, groups=2, channel_sigmoid=False),
    ],
    'GC': options(
        pooling=['att', 'avg'],
        fusion=[('add',), ('mul',), ('mul', 'add')],
        reduction=[4],
    ),
    'GE': options(
        variant=['theta_minus', 'theta', 'theta_plus'], extent=[0, 2, 4, 8]
    ),
    'GSoP': [
        dict(att_dim=16),
        dict(att_dim=16, stride=3),
        dict(att_dim=16, mode='position'),
    ],
    'NonLocal': [
        *options(
            mode=[
                'embedded_gaussian',
                'gaussian',
                'dot_product',
                'concatenation',
            ],
            sub_sample=[False, True],
            norm_cfg=[None, BN],
            reduction=[4],
        ),
        dict(use_scale=False),
    ],
    'PSAConv2d': options(
        out_channels=[64], stride=[1, 2], groups=[(1, 2, 4, 8)], reduction=[4]
    ),
    'SCSE': options(fusion=['max', 'add'], reduction=[4]),
    'SE': options(reduction=[2, 16, 64], bias=[True, False]),
    'SimAM': options(lambda_=[1e-4, 0.1]),
    'TripletAttention': options(kernel_size=[5, 7]),
}


def test_every_module_has_a_formula():
    assert FORMULAS.keys() == MODULES.keys() | {'PSAConv2d'}
    assert FORMS.keys() <= FORMULAS.keys()


def label(value):
    return value if isinstance(value, str) else str(list(value.values()))


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [(name, form) for name in FORMULAS for form in FORMS.get(name, [{}])],
    ids=label,
)
def test_formula(name, arguments):
    """In eval and in train mode, on maps that are not square."""
    for shape in SHAPES:
        extra = {}
        if name == 'GE' and arguments['variant'] != 'theta_minus':
            extra = {} if arguments['extent'] else {'spatial_size': shape[2:]}
        torch.manual_seed(0)
        module = getattr(ma, name)(32, **arguments, **extra)
        randomise(module).double()
        x = torch.randn(shape, dtype=torch.double)
        for training in (False, True):
            if training and shape[0] == 1:
                continue  # batch norm of one value
            module.train(training)
            y, expected = module(x), FORMULAS[name](module, x)
            assert expected.std() > 1e-3
            # The basis of FCA is kept in float32.
            rtol = 1e-6 if name == 'FCA' else 1e-9
            torch.testing.assert_close(y, expected, rtol=rtol, atol=1e-9)


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
