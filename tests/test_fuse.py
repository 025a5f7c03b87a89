"""Fused networks return what they returned before."""

import json

import pytest
import torch
from conftest import DEMO, ROOT, run_tool, user_error
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_attn import insert
from mmdet_attn.cost.complexity import Dense
from mmdet_attn.fuse import Fused, fuse
from mmdet_attn.places import tensors


def prepare(network):
    """Random statistics and scales of all norms."""
    torch.manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return network.double().eval()


@torch.no_grad()
def fuse_same(network, x, runs=None):
    """Fuse, and check that all outputs stay."""
    runs = runs or network
    x = x.double()
    before = [y.clone() for y in tensors(runs(x))]
    done = fuse(network, lambda: runs(x))
    for one, two in zip(before, tensors(runs(x)), strict=True):
        assert (one - two).abs().max() <= 1e-10 * one.abs().max()
    return done


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('faster_rcnn_r50_eca', Fused(53, 16)),
        # In BAM, norms stand behind linear layers, too.
        ('faster_rcnn_r50_bam', Fused(53, 3)),
        # Its levels share convolutions, and have norms of their own.
        ('rtmdet_tiny_eca', Fused(64, 4)),
        ('yolox_s_cbam', Fused(77, 0)),
    ],
)
def test_detectors(name, expected):
    from mmdet.registry import MODELS

    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.model.backbone.init_cfg = None
    init_default_scope('mmdet')
    detector = prepare(MODELS.build(cfg.model))
    x = torch.randn(1, 3, 64, 96)
    assert fuse_same(detector, x, Dense(detector).eval()) == expected


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(4, 4, 3, padding=1, bias=bias) for bias in (True, False)
        )
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def used_elsewhere(net, x):
    y = net.conv1(x)
    return net.bn1(y) + y


def changed_in_place(net, x):
    return net.bn1(net.conv1(x).relu_())


def returned_too(net, x):
    y = net.conv1(x)
    return net.bn1(net.conv1(y)), y


@pytest.mark.parametrize(
    ('forward', 'norms'),
    [
        (lambda n, x: n.bn2(n.conv2(n.bn1(n.conv1(x)))), 2),
        (lambda n, x: n.bn1(n.conv2(n.bn1(n.conv1(x)))), 0),
        (lambda n, x: n.bn2(n.conv1(n.bn1(n.conv1(x)))), 0),
        (lambda n, x: n.bn1(n.conv1(n.bn1(n.conv1(x)))), 1),
        (lambda n, x: n.bn1(n.conv1(n.bn1(x))), 0),
        (used_elsewhere, 0),
        (changed_in_place, 0),
        (returned_too, 0),
    ],
)
def test_what_belongs_together(forward, norms):
    x = torch.randn(2, 4, 8, 8)
    assert fuse_same(prepare(Net(forward)), x) == Fused(norms, 0)


def test_a_norm_that_learns_stays():
    net = prepare(Net(lambda n, x: n.bn1(n.conv1(x))))
    net.bn1.train()
    assert fuse(net, lambda: net(torch.ones(2, 4, 8, 8).double())) == Fused(
        0, 0
    )


@pytest.mark.parametrize('place', ['after', 'before'])
@pytest.mark.parametrize(('alpha', 'gates'), [(0, 1), (0.5, 0), (1, 0)])
def test_inserted_gates(place, alpha, gates):
    """Those that do something stay where they are."""
    net = Net(lambda n, x: n.bn2(n.conv2(n.bn1(n.conv1(x)))))
    cfg = dict(type='mmdet_attn.SE', reduction=2, identity_init=True)
    insert(net, [dict(cfg=cfg, at='bn1', place=place)])
    (gate,) = net.insertions.plugins
    nn.init.constant_(gate.alpha, alpha)
    norms = 1 if place == 'before' and not gates else 2
    x = torch.randn(2, 4, 8, 8)
    assert fuse_same(prepare(net), x) == Fused(norms, gates)
    assert (gate.alpha is None) == (alpha == 1)


@pytest.mark.parametrize('tool', ['test', 'predict'])
def test_exported_files_are_refused(tool):
    files = ['x.onnx', 'docs/demo.jpg'][: 1 + (tool == 'predict')]
    error = user_error(f'tools/{tool}.py', DEMO, *files, '--fuse')
    assert 'x.onnx is an ONNX file' in error


@pytest.mark.slow
def test_tools(trained, tmp_path):
    """AP and detections are the same."""
    detector = (trained.config, trained.checkpoint)
    aps, found = [], []
    for flags in ([], ['--fuse']):
        work = tmp_path / f'work{len(flags)}'
        output = run_tool(
            *('tools/test.py', *detector, '--data-root', trained.data),
            *('--work-dir', work, *flags),
        )
        assert ('Fused 53 batch norms' in output) == bool(flags)
        (file,) = work.glob('*/*_metrics.json')
        aps.append(json.loads(file.read_text())['coco']['bbox']['all']['AP'])
        image = trained.data / 'val/000001.png'
        output = run_tool(
            *('tools/predict.py', *detector, image, '--out-dir', work, *flags)
        )
        assert ('Fused 53 batch norms' in output) == bool(flags)
        file = work / f'preds/{image.stem}.json'
        found.append(json.loads(file.read_text())['scores'])
    assert aps[0] == pytest.approx(aps[1], abs=1e-3)
    assert found[0] == pytest.approx(found[1], abs=1e-4)
