"""Parameters and FLOPs: every cell of the paper's Table 5, to its digit."""

import json

import pytest
import torch
from conftest import load_config, run_here
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmdet_attn import ECA
from mmdet_attn.cost.complexity import PAPER, Dense, complexity, flops
from mmdet_attn.errors import InputError
from mmdet_attn.study.paper import TABLE_5

TOOL = 'tools/analysis_tools/complexity.py'


@pytest.mark.parametrize('name', TABLE_5)
def test_table_5(name):
    found, paper = complexity(load_config(name)), TABLE_5[name]
    assert f'{found.params_m:.2f}' == f'{paper[0]:.2f}'
    assert f'{found.gflops:.2f}' == f'{paper[1]:.2f}'


def count(module, *shape):
    counter = FlopCounterMode(display=False, custom_mapping=PAPER)
    with torch.no_grad(), counter:
        module.eval()(torch.zeros(shape))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ('module', 'shape', 'units'),
    [
        # output positions x kernel x in x out / groups, + out if biased
        (nn.Conv2d(8, 6, 3, bias=False), (1, 8, 7, 5), 15 * 9 * 8 * 6),
        (nn.Conv2d(8, 6, 3, groups=2), (1, 8, 7, 5), 15 * (9 * 8 * 3 + 6)),
        (nn.ConvTranspose2d(4, 6, 2, 2), (1, 4, 3, 5), 60 * (4 * 24 + 6)),
        (nn.ConvTranspose2d(4, 6, 2, 2, groups=2), (1, 4, 3, 5), 60 * 54),
        (nn.Linear(8, 6), (10, 8), 10 * 48),
        (nn.BatchNorm2d(4), (1, 4, 5, 6), 2 * 120),
        (nn.ReLU(inplace=True), (1, 4, 5, 6), 120),
        (nn.MaxPool2d(2), (1, 4, 6, 6), 144),
        (nn.AvgPool2d(2), (1, 4, 6, 6), 144),
        (nn.AdaptiveAvgPool2d(1), (1, 4, 5, 6), 120),
        (nn.Sigmoid(), (1, 4, 5, 6), 0),
        # the pooling reads C H W, the convolution writes C of k taps
        (ECA(16, kernel_size=3), (1, 16, 5, 6), 480 + 48),
    ],
)
def test_units(module, shape, units):
    assert count(module, *shape) == units


def test_mmengine_convention():
    """All parameters, and FLOPs that grow with the image."""
    cfg = load_config('demo/faster_rcnn_r50_eca_shapes')
    small = complexity(cfg, (64, 64), 'mmengine')
    large = complexity(cfg, (128, 128), 'mmengine')
    model = MODELS.build(cfg.model)
    total = sum(p.numel() for p in model.parameters())
    assert small.params_m == large.params_m == total / 1e6
    assert small.gflops < large.gflops


def test_bad_input(tmp_path):
    cfg = load_config('retinanet_r50')
    with pytest.raises(InputError, match=r'32 x 32, got \(0, 64\)'):
        complexity(cfg, (0, 64))
    with pytest.raises(InputError, match="'paper' or 'mmengine', got 'mac'"):
        complexity(cfg, convention='mac')
    file = tmp_path / 'cascade.py'
    file.write_text("_base_ = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'")
    cfg = Config.fromfile(file)
    with pytest.raises(InputError, match='CascadeRCNN: only detectors with'):
        complexity(cfg)
    with pytest.raises(InputError, match=r'DINO: .* and no DETR'):
        complexity(load_config('dino_r50_eca'))


def test_swin_is_counted_without_memory_for_it():
    """As the real network, whose blocks pad maps to their windows."""
    cfg = load_config('retinanet_swin_t_eca')
    cfg.model.backbone.host.update(embed_dims=12, depths=(1, 1, 2, 1))
    cfg.model.backbone.host.num_heads = (1, 1, 2, 2)
    cfg.model.neck.in_channels = [24, 48, 96]
    cfg.model.bbox_head.num_classes = 3
    real = Dense(MODELS.build(cfg.model)).eval()
    count = flops(real, torch.zeros(1, 3, 64, 96))
    assert complexity(cfg, (64, 96)).gflops * 1e9 == pytest.approx(count)


def test_tool(tmp_path):
    file = tmp_path / 'rows.json'
    ours = 'configs/retinanet_r50_eca.py'
    small = 'configs/demo/retinanet_r50_eca_shapes.py'
    code, output = run_here(TOOL, ours, small, '--json', file)
    assert code == 0, output
    assert '37.74' in output
    assert '239.43' in output
    paper, demo = json.loads(file.read_text())
    assert paper == {
        'config': ours,
        'params_m': pytest.approx(37.743, abs=1e-3),
        'gflops': pytest.approx(239.429, abs=1e-3),
        'paper_params_m': 37.74,
        'paper_gflops': 239.43,
    }
    assert demo['paper_gflops'] is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['x.py'], 'x.py: no such config'),
        (['--json', 'no/x'], '--json no/x: there is no such folder'),
    ],
)
def test_bad_arguments(arguments, message):
    code, output = run_here(TOOL, *arguments)
    assert code == 2
    assert message in output
