"""Figures that the authors' own code gave, on an input made by a formula.

Element k of the input is sin(k) + cos(floor(k / 35)). Element j of parameter
tensor t, counted from 1 in the authors' order, is 0.5 sin(100 t + j). Running
means are 0.1, running variances are 2. All is in double precision.
"""

import re

import pytest
import torch

import mmdet_attn as ma

CRISSCROSS = 'gamma query_conv key_conv value_conv'
LSK = 'conv0 conv_spatial conv1 conv2 conv_squeeze conv'
LSKA = 'conv0h conv0v conv_spatial_h conv_spatial_v conv1'
UNIT = f'proj_1 {LSK} proj_2'.replace(' conv', ' spatial_gating_unit.conv')
CAA = 'conv1.conv h_conv.conv v_conv.conv conv2.conv'
POLARIZED = 'conv_q_right conv_v_right {} conv_q_left conv_v_left'
PARALLEL = POLARIZED.format('conv_up')
SEQUENTIAL = POLARIZED.format('conv_up.0 conv_up.1 conv_up.3')
SA = 'cweight cbias sweight sbias gn'
SK = 'convs.0 norms.0 convs.1 norms.1 fc1 norm fc2'
SPM = 'conv1 bn1 conv2 bn2 conv3'
# The module; its parameters, or layers with parameters, in the authors'
# order; of the output the sum, that of the squares, and y[0,1,0,0],
# y[0,3,2,5], y[1,15,4,6].
EVAL = f"""
CAA: {CAA}
  7.976119 430.216870 0.013166 -0.159440 1.101757
CAA.gate: {CAA}
  579.256704 407.351963 0.117431 0.080295 0.747660
CrissCross: {CRISSCROSS}
  38.613581 1652.606494 -0.063635 -2.708259 0.707642
EMA factor=4: gn conv1x1 conv3x3
  4.613015 234.471381 0.049047 -0.877778 0.614150
ESE: fc
  -28.339311 448.769789 0.074796 -0.709598 0.456497
GCT: alpha gamma beta
  19.661427 2010.471988 0.079756 -3.523070 2.654773
GCT mode='l1': alpha gamma beta
  18.868174 2095.586362 0.079596 -3.563902 2.688042
LSK: {LSK}
  44.170448 990.099934 0.171497 1.859627 0.482430
LSKA kernel_size=7: {LSKA}
  -10.825964 3119.568575 -0.106791 4.965912 2.001284
LSKA kernel_size=11: {LSKA}
  -43.477207 3092.350400 -0.105477 4.641984 2.513553
LSKA kernel_size=23: {LSKA}
  -43.521714 4035.083377 -0.140698 4.906952 2.345316
LSKUnit: {UNIT}
  118.304406 13261.239042 1.061875 -3.022544 7.621509
NAM: norm
  11.503374 284.266958 0.056024 -0.993061 0.769356
PolarizedParallel: {PARALLEL}
  3.049001 1244.597276 0.094846 -2.438303 1.119628
PolarizedSequential: {SEQUENTIAL}
  4.738275 74.938077 0.028904 -0.388089 0.299007
SGE groups=4: weight bias
  10.253644 329.940765 0.038772 -0.669065 0.941669
SKConv2d out_channels=16, groups=4: {SK}
  166.868942 71.289959 0.000000 0.605066 0.012409
SPM: {SPM}
  6.053965 342.033975 0.047030 -0.328561 0.944508
SPM.gate: {SPM}
  567.446035 326.275068 0.419459 0.165465 0.640950
SRM: cfc norm
  6.335781 280.078359 0.048062 -1.284109 0.772005
ShuffleAttention groups=4: {SA}
  19.688327 207.799643 -0.215923 -0.033045 0.656301
"""
TRAIN = f"""
NAM: norm
  11.874990 284.476060 0.056030 -0.991868 0.774853
SKConv2d out_channels=16, groups=4: {SK}
  200.660306 107.328115 0.000000 0.965992 0.000000
SPM.gate: {SPM}
  566.922694 328.178216 0.496872 0.151628 0.661599
SRM: cfc norm
  5.742509 289.688344 0.047431 -1.435870 0.693551
"""
LINES = [
    (training, *pair)
    for training, text in ((False, EVAL), (True, TRAIN))
    for pair in re.findall(r'(.+)\n  (.+)', text)
]


def official_input():
    k = torch.arange(2 * 16 * 5 * 7, dtype=torch.double)
    return (k.sin() + (k // 35).cos()).view(2, 16, 5, 7)


def official(call, order):
    """A module with the weights of the check."""
    name, _, arguments = call.partition(' ')
    module = getattr(ma, name)(16, **eval(f'dict({arguments})')).double()
    parameters = [
        parameter
        for start in order.split()
        for name, parameter in module.named_parameters()
        if name == start or name.startswith(f'{start}.')
    ]
    assert len({*parameters}) == len(parameters)
    assert len(parameters) == len(list(module.parameters()))
    for t, parameter in enumerate(parameters, 1):
        j = torch.arange(parameter.numel(), dtype=torch.double)
        parameter.data = (0.5 * (100 * t + j).sin()).view_as(parameter)
    for name, buffer in module.named_buffers():
        if 'running' in name:
            buffer.fill_(0.1 if name.endswith('mean') else 2)
    return module


def figures(y):
    points = y[0, 1, 0, 0], y[0, 3, 2, 5], y[1, 15, 4, 6]
    return [f.item() for f in (y.sum(), y.square().sum(), *points)]


def near(figures):
    return pytest.approx([float(f) for f in figures], rel=0, abs=6e-7)


def test_the_input():
    """What the figures rely on has figures of its own."""
    known = (21.000939, 1130.704418, 0.112120, -1.985679, 1.473606)
    assert figures(official_input()) == near(known)


@pytest.mark.parametrize(('training', 'what', 'known'), LINES)
def test_figures(training, what, known):
    call, order = what.split(': ')
    module = official(call.replace('.gate', ''), order).train(training)
    run = module.gate if '.gate' in call else module
    assert figures(run(official_input())) == near(known.split())


def test_selective_kernel_with_a_stride():
    call = 'SKConv2d out_channels=16, stride=2, groups=4'
    y = official(call, SK).eval()(official_input())
    assert y.shape == (2, 16, 3, 4)
    assert [y.sum().item()] == near([57.463471])


def test_nam_has_no_gradient_through_its_weights():
    """The batch norm's scale learns as a scale only."""
    module = official('NAM', 'norm').eval()
    module(official_input()).square().sum().backward()
    grad = module.norm.weight.grad
    known = (-0.404154, 0.070139, 0.074195, 0.350948)
    assert [g.item() for g in (grad.sum(), *grad[:3])] == near(known)


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
