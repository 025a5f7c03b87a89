"""Attention in networks of plain PyTorch, as in torchvision and timm."""

import pytest
import torch
from torch import nn

from mmdet_attn import insert
from mmdet_attn.errors import InputError


def check(plain, ours):
    """Plain weights load and give equal outputs; all plugins learn."""
    assert type(ours) is type(plain)
    missing, unexpected = ours.load_state_dict(plain.state_dict(), False)
    added = {
        f'{name}.{key}'
        for name, module in ours.named_modules()
        if any(module is plugin for plugin in ours.insertions.plugins)
        for key in module.state_dict()
        if not key.endswith('num_batches_tracked')
    }
    assert set(missing) == added
    assert not unexpected
    x = torch.randn(2, 3, 64, 96)
    plain.eval(), ours.eval()
    with torch.no_grad():
        assert_equal(ours(x), plain(x))
    exported = torch.export.export(ours, (x,)).module()
    with torch.no_grad():
        assert_equal(exported(x), ours(x))

    ours.train()
    optimizer = torch.optim.SGD(ours.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        sum(y.square().mean() for y in levels(ours(x))).backward()
        for plugin in ours.insertions.plugins:
            learning = {
                key.endswith('alpha')
                for key, parameter in plugin.named_parameters()
                if parameter.grad is not None and parameter.grad.any()
            }
            # At the identity the gate itself has no gradient yet.
            assert learning == ({True, False} if step else {True})
        optimizer.step()
    assert all(y.isfinite().all() for y in levels(ours(x)))


def levels(output):
    return output if isinstance(output, (tuple, list)) else [output]


def assert_equal(one, other):
    for a, b in zip(levels(one), levels(other), strict=True):
        assert torch.equal(a, b)


class Block(nn.Module):
    """As in torchvision's ResNets."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, padding=3)
        self.layer1 = nn.Sequential(Block(16), Block(16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.layer1(self.conv1(x)).mean((2, 3)))


class NHWC(nn.Module):
    """As the blocks of timm's and torchvision's ConvNeXt."""

    def __init__(self, channels):
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, 1, 3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )
        self.drop_path = nn.Identity()

    def forward(self, x):
        y = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GroupNorm(1, 16))
        self.stages = nn.ModuleList([NHWC(16), NHWC(16)])

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


@pytest.mark.parametrize('kind', ['ECA', 'CBAM'])
@pytest.mark.parametrize(
    ('network', 'at', 'first'),
    [
        (ResNet, 'layer*.bn2', 'layer1.0.{}'),
        (ConvNeXt, 'stages.*.drop_path', 'stages.0.{}'),
        (ConvNeXt, 'stages.*.conv_dw', 'stages.0.{}'),
        (ConvNeXt, 'stages.?', 'stages.0.{}'),
    ],
)
def test_plain_pytorch(network, at, first, kind):
    torch.manual_seed(0)
    plain, ours = network(), network()
    cfg = dict(type=kind, identity_init=True)
    assert insert(ours, [dict(cfg=cfg, at=at)]) is ours
    assert len(ours.insertions.plugins) == 2
    plugin = ours.get_submodule(first.format(kind.lower()))
    assert plugin is ours.insertions.plugins[0]
    check(plain, ours)


@pytest.mark.parametrize(
    ('at', 'given'),
    [
        ('stages.*.norm', r'\(1, 32, 48, 16\)'),
        ('stages.*.mlp', r'\(1, 32, 48, 16\)'),
    ],
)
@pytest.mark.parametrize('place', ['after', 'before'])
def test_channels_last_is_refused(at, given, place):
    """Its second dimension is no channel."""
    network = ConvNeXt()
    before = list(network.state_dict())
    with pytest.raises(InputError, match=rf'the shape {given}.*map \(N, C'):
        insert(network, [dict(cfg=dict(type='ECA'), at=at, place=place)])
    assert list(network.state_dict()) == before


class Dense(nn.ModuleDict):
    """As the blocks of torchvision's DenseNet."""

    def forward(self, x):
        for module in self.values():
            x = x + module(x)
        return x


def test_container_that_runs_what_is_in_it_is_refused():
    """A plugin in it would run twice."""
    block = Dense(dict(conv=nn.Conv2d(3, 3, 1)))
    network = nn.Sequential(nn.Sequential(block, nn.Sequential()))
    for at in ('0.0', '0', '0.1'):
        with pytest.raises(InputError, match=r'0\.\d.* runs all modules'):
            insert(network, [dict(cfg=dict(type='ECA'), at=at)])
    assert not [*block.children()][1:]
    insert(network, [dict(cfg=dict(type='ECA'), at='0.0.conv')])
    assert len(network.insertions.plugins) == 1


class FixedSize(ConvNeXt):
    """As timm's Swin, which takes images of one size."""

    def forward(self, x):
        if x.shape[2:] != (96, 96):
            raise ValueError('images of 96 x 96 only')
        return super().forward(x)


def test_given_channels_are_compared_with_the_map():
    """Nobody has seen the shapes of a network that did not run on zeros."""
    x = torch.randn(1, 3, 96, 96)
    for at, channels in (('stages.0.norm', 16), ('stages.0.conv_dw', 8)):
        network = FixedSize()
        cfg = dict(type='ECA', in_channels=channels)
        insert(network, [dict(cfg=cfg, at=at)])
        with pytest.raises(InputError, match=rf'\(N, {channels}, H, W\), got'):
            network(x)
    network = FixedSize()
    cfg = dict(type='ECA', in_channels=16)
    insert(network, [dict(cfg=cfg, at='stages.0.conv_dw')])
    assert network(x).shape == (1, 16, 24, 24)
