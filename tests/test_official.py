"""Figures that the authors' own code gave, in double precision.

The input and the parameters are sines and cosines of an index, so anybody can
make them again. The parameters are numbered in the authors' order.
"""

import pytest
import torch

import mmdet_attn as ma

POLARIZED = 'conv_q_right conv_v_right {} conv_q_left conv_v_left'
LSK = 'conv0 conv_spatial conv1 conv2 conv_squeeze conv'
LSKA = 'conv0h conv0v conv_spatial_h conv_spatial_v conv1'
CAA = 'conv1.conv h_conv.conv v_conv.conv conv2.conv'
# The arguments, the layers in the authors' order, and of the output: its sum,
# the sum of its squares, and three of its values.
FIGURES = {
    'EMA': (
        dict(factor=4),
        'gn conv1x1 conv3x3',
        (4.613015, 234.471381, 0.049047, -0.877778, 0.614150),
    ),
    'PolarizedParallel': (
        {},
        POLARIZED.format('conv_up'),
        (3.049001, 1244.597276, 0.094846, -2.438303, 1.119628),
    ),
    'PolarizedSequential': (
        {},
        POLARIZED.format('conv_up.0 conv_up.1 conv_up.3'),
        (4.738275, 74.938077, 0.028904, -0.388089, 0.299007),
    ),
    'LSK': (
        {},
        LSK,
        (44.170448, 990.099934, 0.171497, 1.859627, 0.482430),
    ),
    'LSKUnit': (
        {},
        f'proj_1 {LSK} proj_2'.replace(' conv', ' spatial_gating_unit.conv'),
        (118.304406, 13261.239042, 1.061875, -3.022544, 7.621509),
    ),
    'LSKA 7': (
        dict(kernel_size=7),
        LSKA,
        (-10.825964, 3119.568575, -0.106791, 4.965912, 2.001284),
    ),
    'LSKA 11': (
        dict(kernel_size=11),
        LSKA,
        (-43.477207, 3092.350400, -0.105477, 4.641984, 2.513553),
    ),
    'LSKA 23': (
        dict(kernel_size=23),
        LSKA,
        (-43.521714, 4035.083377, -0.140698, 4.906952, 2.345316),
    ),
    'CAA': (
        {},
        CAA,
        (7.976119, 430.216870, 0.013166, -0.159440, 1.101757),
    ),
    'CAA gate': (
        {},
        CAA,
        (579.256704, 407.351963, 0.117431, 0.080295, 0.747660),
    ),
}


def number(module, layers):
    """Element j of parameter t is sin(100 t + j) / 2."""
    parameters = [
        parameter
        for layer in layers.split()
        for parameter in module.get_submodule(layer).parameters()
    ]
    assert len(parameters) == len(list(module.parameters()))
    for t, parameter in enumerate(parameters, 1):
        index = torch.arange(parameter.numel(), dtype=torch.double)
        parameter.data = (0.5 * (100 * t + index).sin()).view_as(parameter)


@pytest.mark.parametrize('case', FIGURES)
def test_figures_of_the_authors_code(case):
    arguments, layers, figures = FIGURES[case]
    name, _, part = case.partition(' ')
    module = getattr(ma, name)(16, **arguments).eval()
    number(module, layers)
    k = torch.arange(2 * 16 * 5 * 7)
    x = k.double().sin() + (k // 35).double().cos()
    x = x.view(2, 16, 5, 7)
    y = module.gate(x) if part == 'gate' else module(x)
    found = [y.sum(), y.square().sum()]
    found += [y[0, 1, 0, 0], y[0, 3, 2, 5], y[1, 15, 4, 6]]
    assert [f.item() for f in found] == pytest.approx(figures, abs=6e-7)
