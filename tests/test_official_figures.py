"""Figures that the authors' own code gave, on an input made by a formula.

Element k of the input is sin(k) + cos(floor(k / 35)). Element j of parameter
tensor t, counted from 1 in the authors' order, is 0.5 sin(100 t + j). Running
means are 0.1, running variances are 2. All is in double precision.
"""

import pytest
import torch

import mmdet_attn as ma

NORM = ['norm.weight', 'norm.bias']
# The parameters of each module in the order of its authors.
ORDERS = {
    'CrissCross': [
        'gamma',
        *(
            f'{name}_conv.{kind}'
            for name in ('query', 'key', 'value')
            for kind in ('weight', 'bias')
        ),
    ],
    'SRM': ['cfc', *NORM],
    'NAM': NORM,
    'GCT': ['alpha', 'gamma', 'beta'],
    'SPM': [
        *('conv1.weight', 'bn1.weight', 'bn1.bias'),
        *('conv2.weight', 'bn2.weight', 'bn2.bias'),
        *('conv3.weight', 'conv3.bias'),
    ],
}
# The sum, that of the squares, and y[0,1,0,0], y[0,3,2,5], y[1,15,4,6].
EVAL = {
    'CrissCross': (38.613581, 1652.606494, -0.063635, -2.708259, 0.707642),
    'SRM': (6.335781, 280.078359, 0.048062, -1.284109, 0.772005),
    'NAM': (11.503374, 284.266958, 0.056024, -0.993061, 0.769356),
    'GCT': (19.661427, 2010.471988, 0.079756, -3.523070, 2.654773),
    'GCT-l1': (18.868174, 2095.586362, 0.079596, -3.563902, 2.688042),
    'SPM': (6.053965, 342.033975, 0.047030, -0.328561, 0.944508),
    'SPM.gate': (567.446035, 326.275068, 0.419459, 0.165465, 0.640950),
}
TRAIN = {
    'SRM': (5.742509, 289.688344, 0.047431, -1.435870, 0.693551),
    'NAM': (11.874990, 284.476060, 0.056030, -0.991868, 0.774853),
    'SPM.gate': (566.922694, 328.178216, 0.496872, 0.151628, 0.661599),
}

CLOSE = dict(rtol=0, atol=6e-7)


def official_input():
    k = torch.arange(2 * 16 * 5 * 7, dtype=torch.double)
    return (k.sin() + (k // 35).cos()).view(2, 16, 5, 7)


def official_weights(module, order):
    module.double()
    parameters = dict(module.named_parameters())
    assert sorted(parameters) == sorted(order)
    with torch.no_grad():
        for t, name in enumerate(order, 1):
            parameter = parameters[name]
            j = torch.arange(parameter.numel(), dtype=torch.double)
            parameter.copy_((0.5 * (100 * t + j).sin()).view_as(parameter))
    for name, buffer in module.named_buffers():
        if 'running' in name:
            buffer.fill_(0.1 if name.endswith('mean') else 2)
    return module


def official_module(form):
    name, _, mode = form.removesuffix('.gate').partition('-')
    module = getattr(ma, name)(16, **({'mode': mode} if mode else {}))
    return official_weights(module, ORDERS[name])


def test_the_input():
    """What the figures rely on has figures of its own."""
    x = official_input()
    points = [x[0, 1, 0, 0], x[0, 3, 2, 5], x[1, 15, 4, 6]]
    found = torch.stack([x.sum(), x.square().sum(), *points])
    known = (21.000939, 1130.704418, 0.112120, -1.985679, 1.473606)
    torch.testing.assert_close(found, found.new_tensor(known), **CLOSE)


@pytest.mark.parametrize(
    ('form', 'training', 'known'),
    [
        *((form, False, known) for form, known in EVAL.items()),
        *((form, True, known) for form, known in TRAIN.items()),
    ],
)
def test_figures(form, training, known):
    module = official_module(form).train(training)
    y = (module.gate if form.endswith('.gate') else module)(official_input())
    points = [y[0, 1, 0, 0], y[0, 3, 2, 5], y[1, 15, 4, 6]]
    found = torch.stack([y.sum(), y.square().sum(), *points])
    torch.testing.assert_close(found, found.new_tensor(known), **CLOSE)


def test_nam_has_no_gradient_through_its_weights():
    """The batch norm's scale learns as a scale only."""
    module = official_module('NAM').eval()
    module(official_input()).square().sum().backward()
    grad = module.norm.weight.grad
    found = torch.stack([grad.sum(), *grad[:3]])
    known = grad.new_tensor([-0.404154, 0.070139, 0.074195, 0.350948])
    torch.testing.assert_close(found, known, **CLOSE)


@pytest.mark.parametrize(
    ('name', 'ratio'),
    [
        ('CrissCross', 1),
        ('GCT', 1),
        ('NAM', 0.5),
        ('SPM', 0.499),
        ('SRM', 0.5),
    ],
)
def test_what_a_fresh_module_leaves_of_its_input(name, ratio):
    """The root mean squares of output and input, C = 256."""
    torch.manual_seed(0)
    module = getattr(ma, name)(256).eval()
    x = torch.randn(2, 256, 56, 56)
    found = module(x).square().mean().sqrt() / x.square().mean().sqrt()
    assert found.item() == pytest.approx(ratio, abs=0.01)


def test_fresh_weights_are_as_wide_as_the_authors():
    """SPM's by its fan out, CrissCross's by torch's default."""
    torch.manual_seed(0)
    spm, crisscross = ma.SPM(512), ma.CrissCross(512)
    for conv, std in (
        (spm.conv1, (2 / (3 * 512)) ** 0.5),
        (spm.conv2, (2 / (3 * 512)) ** 0.5),
        (spm.conv3, (2 / 512) ** 0.5),
        (crisscross.query_conv, (3 * 512) ** -0.5),
        (crisscross.value_conv, (3 * 512) ** -0.5),
    ):
        assert conv.weight.std().item() == pytest.approx(std, rel=0.02)
    assert spm.conv3.bias.abs().sum() > 0
