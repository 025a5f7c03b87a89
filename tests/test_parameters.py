"""Parameters that each module adds to ResNet-50, against known figures.

Papers, the authors' repositories or their code counted these; where a module
has a position of its own, only the blocks there count.
"""

from functools import partial

import pytest
import torch

import mmdet_attn as ma

# Behind the last convolution of every block, and behind the 3x3 convolution.
EVERY_BLOCK = {256: 3, 512: 4, 1024: 6, 2048: 3}
NARROW = {64: 3, 128: 4, 256: 6, 512: 3}
C3_TO_C5 = {512: 4, 1024: 6, 2048: 3}
LAST_BLOCKS = {256: 1, 512: 1, 1024: 1, 2048: 1}
BAM_BLOCKS = {256: 1, 512: 1, 1024: 1}
FIVE_BLOCKS = {512: 2, 1024: 3}
RELEASED_K = {256: 3, 512: 5, 1024: 5, 2048: 7}
BN = dict(type='BN')


def whole(channels):
    """The size of a map of the stage at an input of 224 x 224."""
    return 14336 // channels


FIGURES = {
    'SE': (ma.SE, EVERY_BLOCK, 2_530_992),
    'SE without biases': (
        lambda c: ma.SE(c, bias=False),
        EVERY_BLOCK,
        2_514_944,
    ),
    'SE-Var1': (ma.SEVar1, EVERY_BLOCK, 0),
    'SE-Var2': (ma.SEVar2, EVERY_BLOCK, 15_104),
    'SE-Var3': (ma.SEVar3, EVERY_BLOCK, 20_119_552),
    'SE-GC1': (ma.SEGC1, EVERY_BLOCK, 1_257_472),
    'SE-GC2': (ma.SEGC2, EVERY_BLOCK, 241_664),
    'SE-GC3': (ma.SEGC3, EVERY_BLOCK, 120_832),
    'ECA-NS': (ma.ECANS, EVERY_BLOCK, 45_312),
    'ECA as released': (
        lambda c: ma.ECA(c, kernel_size=RELEASED_K[c]),
        EVERY_BLOCK,
        80,
    ),
    'ECA by formula': (ma.ECA, EVERY_BLOCK, 86),
    'ECA k = 3': (lambda c: ma.ECA(c, kernel_size=3), EVERY_BLOCK, 48),
    'CBAM': (ma.CBAM, EVERY_BLOCK, 2_532_592),
    'BAM': (ma.BAM, BAM_BLOCKS, 358_067),
    'scSE r = 16': (lambda c: ma.SCSE(c, 16), EVERY_BLOCK, 2_546_112),
    'scSE': (ma.SCSE, EVERY_BLOCK, 20_157_328),
    'GE-theta-': (lambda c: ma.GE(c, 'theta_minus'), EVERY_BLOCK, 0),
    'GE-theta E2': (lambda c: ma.GE(c, extent=2), EVERY_BLOCK, 166_144),
    'GE-theta E4': (ma.GE, EVERY_BLOCK, 332_288),
    'GE-theta E8': (lambda c: ma.GE(c, extent=8), EVERY_BLOCK, 498_432),
    'GE-theta global': (
        lambda c: ma.GE(c, extent=0, spatial_size=whole(c)),
        EVERY_BLOCK,
        5_549_568,
    ),
    'GE-theta+ global': (
        lambda c: ma.GE(c, 'theta_plus', 0, whole(c)),
        EVERY_BLOCK,
        8_080_560,
    ),
    'GSoP': (ma.GSoP, LAST_BLOCKS, 2_728_192),
    'GC c3-c5': (ma.GC, C3_TO_C5, 2_521_741),
    'GC': (ma.GC, EVERY_BLOCK, 2_548_000),
    'GC r = 4, c3-c5': (lambda c: ma.GC(c, 4), C3_TO_C5, 10_000_909),
    'GC r = 4': (lambda c: ma.GC(c, 4), EVERY_BLOCK, 10_101_328),
    'Non-local': (ma.NonLocal, {1024: 1}, 2_099_712),
    'Non-local with BN': (
        lambda c: ma.NonLocal(c, norm_cfg=BN),
        {1024: 1},
        2_100_736,
    ),
    'A2': (ma.A2, FIVE_BLOCKS, 7_350_272),
    'PAM': (ma.PAM, {512: 1}, 328_321),
    'CAM': (ma.CAM, {512: 1}, 1),
    'GAM': (ma.GAM, EVERY_BLOCK, 125_811_392),
    'GAM, 4 groups': (lambda c: ma.GAM(c, groups=4), EVERY_BLOCK, 33_387_200),
    'CoordAtt': (ma.CoordAtt, EVERY_BLOCK, 1_917_832),
    'FcaNet': (ma.FCA, EVERY_BLOCK, 2_514_944),
    'SimAM': (ma.SimAM, EVERY_BLOCK, 0),
    'SGE': (ma.SGE, EVERY_BLOCK, 2_048),
    'Shuffle attention': (ma.ShuffleAttention, EVERY_BLOCK, 708),
    'Shuffle attention, 32 groups': (
        lambda c: ma.ShuffleAttention(c, 32),
        EVERY_BLOCK,
        1_416,
    ),
    'Shuffle attention, 32 groups, after conv2': (
        lambda c: ma.ShuffleAttention(c, 32),
        NARROW,
        354,
    ),
    'eSE': (ma.ESE, EVERY_BLOCK, 20_134_656),
    'eSE after conv2': (ma.ESE, NARROW, 1_261_248),
    'CrissCross': (ma.CrissCross, EVERY_BLOCK, 25_168_336),
    'SRM': (ma.SRM, EVERY_BLOCK, 60_416),
    'NAM': (ma.NAM, EVERY_BLOCK, 30_208),
    'GCT': (ma.GCT, EVERY_BLOCK, 45_312),
    'SPM': (ma.SPM, EVERY_BLOCK, 140_912_384),
    'Triplet': (ma.TripletAttention, EVERY_BLOCK, 4_800),
    'EMA': (ma.EMA, EVERY_BLOCK, 198_368),
    'EMA f = 8': (lambda c: ma.EMA(c, 8), EVERY_BLOCK, 3_151_232),
    'EMA after_conv2': (ma.EMA, NARROW, 12_752),
    'PSA_p': (ma.PolarizedParallel, EVERY_BLOCK, 40_254_208),
    'PSA_p after_conv2': (ma.PolarizedParallel, NARROW, 2_518_720),
    'PSA_s': (ma.PolarizedSequential, EVERY_BLOCK, 33_987_616),
    'PSA_s after_conv2': (ma.PolarizedSequential, NARROW, 2_130_952),
    'LSK': (ma.LSK, EVERY_BLOCK, 31_360_608),
    'LSK after_conv2': (ma.LSK, NARROW, 2_183_904),
    'LSK unit': (ma.LSKUnit, EVERY_BLOCK, 71_629_920),
    'LSK unit after_conv2': (ma.LSKUnit, NARROW, 4_706_400),
    'CAA': (ma.CAA, EVERY_BLOCK, 40_631_808),
    'CAA after_conv2': (ma.CAA, NARROW, 2_613_120),
}
for k, last, inner in (
    (7, 20_376_320, 1_321_664),
    (11, 20_436_736, 1_336_768),
    (23, 20_557_568, 1_366_976),
    (35, 20_678_400, 1_397_184),
    (41, 20_738_816, 1_412_288),
    (53, 20_859_648, 1_442_496),
):
    build = partial(ma.LSKA, kernel_size=k)
    FIGURES[f'LSKA k = {k}'] = build, EVERY_BLOCK, last
    FIGURES[f'LSKA k = {k} after_conv2'] = build, NARROW, inner


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize('name', FIGURES)
def test_added_to_resnet50(name):
    build, blocks, figure = FIGURES[name]
    with torch.device('meta'):
        added = sum(n * count(build(c)) for c, n in blocks.items())
    assert added == figure


def test_resnet50_with_psa():
    """EPSANet-50 and -101: the whole networks, with their classifier."""
    from mmdet.registry import MODELS

    classifier = 2048 * 1000 + 1000
    for depth, figure in ((50, 22_561_715), (101, 38_900_279)):
        cfg = dict(
            type='mmdet.ResNet',
            depth=depth,
            dcn=dict(type='mmdet_attn.PSAConv2d'),
            stage_with_dcn=(True,) * 4,
        )
        with torch.device('meta'):
            assert count(MODELS.build(cfg)) + classifier == figure


@pytest.mark.parametrize(
    ('cfg', 'figure'),
    [
        (dict(type='mmdet_attn.SKNet', depth=50), 27_479_784),
        # A plain ResNet-50 keeps the norm behind its convolution.
        (
            dict(
                type='mmdet.ResNet',
                depth=50,
                dcn=dict(type='mmdet_attn.SKConv2d'),
                stage_with_dcn=(True,) * 4,
            ),
            15_325_736,
        ),
    ],
)
def test_networks_of_selective_kernels(cfg, figure):
    """The first as summed up from the authors' network definition."""
    from mmdet.registry import MODELS

    with torch.device('meta'):
        found = count(MODELS.build(cfg)) + 2048 * 1000 + 1000
    assert found == figure
