"""`where.py` and its suggestions: places that `insert` accepts."""

import ast
import re
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT, run_here
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmdet_attn import ECA, insert
from mmdet_attn.cost.complexity import flops
from mmdet_attn.errors import InputError
from mmdet_attn.places import (
    BLOCK,
    BRANCH,
    HEAD,
    LEVEL,
    Flow,
    Place,
    added,
    pattern,
    suggest,
)
from mmdet_attn.tracing import trace

TOOL = 'tools/analysis_tools/where.py'
DETECTOR = 'configs/demo/faster_rcnn_r50_eca_shapes.py'


class Zero(nn.Module):
    """Attention that closes what it sits in."""

    _abbr_ = 'zero'

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.in_channels
        return 0 * x


class Block(nn.Module):
    """A block as in plain PyTorch, with a shortcut where it needs one."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1),
        )
        self.skip = nn.Conv2d(channels, out, 1, stride)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.skip(x) if self.skip.out_channels != x.shape[1] else x
        return self.act(torch.add(self.body[2](self.body[:2](x)), y))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        blocks = [Block(4, 4, 1), *(Block(4 << i, 8 << i, 2) for i in (0, 1))]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return {'out': x}


class Host(NamedTuple):
    cfg: dict
    places: list[tuple]
    # Blocks that return their input when their branch is closed.
    open: str = ''


RESNET = dict(type='mmdet.ResNet', base_channels=8, stem_channels=8)
BASIC = dict(block='BASIC', num_blocks=(1,), num_channels=(8,))
HRNET = dict(
    stage1=BASIC | dict(num_modules=1, num_branches=1),
    **{
        f'stage{stage}': dict(
            num_modules=1,
            num_branches=stage,
            block='BASIC',
            num_blocks=(1,) * stage,
            num_channels=tuple(4 << i for i in range(stage)),
        )
        for stage in (2, 3, 4)
    },
)
HOSTS = {
    'ResNet-50': Host(
        RESNET | dict(depth=50),
        [(BRANCH, 'layer*.*.bn3', 16), (LEVEL, 'layer?', 4)],
        r'layer\d\.[1-9]',
    ),
    'ResNet-18': Host(
        RESNET | dict(depth=18, out_indices=(1, 3), frozen_stages=1),
        [(BRANCH, 'layer*.*.bn2', 8), (LEVEL, 'layer[24]', 2)],
        r'layer\d\.1|layer1\.0',
    ),
    'CSPDarknet': Host(
        dict(type='mmdet.CSPDarknet', deepen_factor=0.33, widen_factor=0.125),
        [
            (BRANCH, 'stage*.1.blocks.*.conv2', 7),
            (LEVEL, 'stage[2-4]', 3),
        ],
        r'stage[123]\.1\.blocks\.\d',
    ),
    'MobileNetV2': Host(
        dict(type='mmdet.MobileNetV2'),
        [
            (BRANCH, 'layer*.[1-3].linear_conv', 10),
            (LEVEL, 'layer[235]', 3),
            (LEVEL, 'conv2', 1),
        ],
        r'layer\d\.[1-3]',
    ),
    'SwinTransformer': Host(
        dict(
            type='mmdet.SwinTransformer',
            embed_dims=12,
            num_heads=(1, 2, 2, 2),
            depths=(2, 2, 2, 2),
        ),
        [
            (BRANCH, 'stages.*.blocks.*.attn', 8),
            (LEVEL, 'stages.*.blocks.1', 4),
        ],
    ),
    'PyramidVisionTransformerV2': Host(
        dict(
            type='mmdet.PyramidVisionTransformerV2',
            embed_dims=8,
            num_layers=[2, 2, 2, 2],
        ),
        [
            (BLOCK, 'layers.*.1.?.attn', 8),
            (BRANCH, 'layers.*.1.*.ffn.layers.4', 8),
            (LEVEL, 'layers.*.1.1', 4),
        ],
    ),
    # Its levels come from one ReLU, which sees maps of several widths.
    'HRNet': Host(
        dict(type='mmdet.HRNet', extra=HRNET),
        [
            (BRANCH, 'layer1.0.bn2', 1),
            (BRANCH, 'stage*.0.branches.*.0.bn2', 9),
        ],
        r'stage\d\.0\.branches\.\d\.0',
    ),
    'FPN': Host(
        dict(
            type='mmdet.FPN',
            in_channels=[8, 16, 32],
            out_channels=8,
            num_outs=4,
        ),
        [(LEVEL, 'fpn_convs.?', 3)],
    ),
    'RetinaHead': Host(
        dict(
            type='mmdet.RetinaHead',
            in_channels=8,
            feat_channels=8,
            num_classes=2,
        ),
        [(HEAD, 'cls_convs.3', 1), (HEAD, 'reg_convs.3', 1)],
    ),
}


def build(name, **cfg):
    torch.manual_seed(0)
    init_default_scope('mmdet')
    network = Net() if name == 'Net' else MODELS.build(HOSTS[name].cfg | cfg)
    network.eval()
    return network


def places(network):
    run, flow = trace(network), Flow()
    flow.watch(network, run.inputs)
    return suggest(network, run, flow)


@pytest.mark.parametrize('name', HOSTS)
def test_suggestions(name):
    """`insert` accepts them, and the network runs with them."""
    network = build(name)
    found = places(network)
    shown = [(place.what, place.at, len(place.names)) for place in found]
    assert shown == HOSTS[name].places
    inputs = trace(network).inputs
    for place in found:
        host = build(name)
        insert(host, [dict(cfg=dict(type=Zero), at=place.at)])
        assert len(host.insertions.items) == len(place.names)
        host(inputs)
    # Nothing is left on the network that was watched.
    assert not any(m._forward_hooks for m in network.modules())


@pytest.mark.parametrize('name', [n for n in HOSTS if HOSTS[n].open])
def test_branches_end_there(name):
    """A block whose branch is closed there returns its input."""
    host = build(name)
    at = [p.at for p in places(host) if p.what == BRANCH]
    for one in at:
        insert(host, [dict(cfg=dict(type=Zero), at=one)])
    same = {}

    def compare(module, args, output):
        same[module] = torch.equal(args[0].relu(), output.relu())

    blocks = [
        module
        for key, module in host.named_modules()
        if re.fullmatch(HOSTS[name].open, key)
    ]
    for block in blocks:
        block.register_forward_hook(compare)
    host(torch.randn(1, 3, 64, 96))
    assert [*same.values()] == len(blocks) * [True]
    assert blocks


@pytest.mark.parametrize('name', ['ResNet-50', 'CSPDarknet', 'FPN'])
def test_levels_end_there(name):
    """All that a network returns has passed them."""
    host = build(name)
    (at,) = [p.at for p in places(host) if p.what == LEVEL]
    insert(host, [dict(cfg=dict(type=Zero), at=at)])
    inputs = trace(host).inputs
    if isinstance(inputs, Tensor):
        inputs = torch.randn_like(inputs)
    assert not any(level.any() for level in host(inputs))


def test_resnet_has_the_keys_of_plugins():
    plugin = dict(cfg=dict(type='mmdet_attn.ECA'), position='after_conv3')
    stock = build('ResNet-50', plugins=[plugin])
    host = build('ResNet-50')
    at = places(host)[0].at
    insert(host, [dict(cfg=dict(type='mmdet_attn.ECA'), at=at)])
    assert host.state_dict().keys() == stock.state_dict().keys()


def test_plain_pytorch():
    """Blocks with a shortcut only: its other end is the branch."""
    network = build('Net')
    assert places(network) == [
        Place(
            'blocks.*.body.2',
            [f'blocks.{index}.body.2' for index in range(3)],
            BRANCH,
        ),
        Place('blocks.2', ['blocks.2'], LEVEL),
    ]


def test_a_sum_of_two_equal_branches_is_no_place():
    """Nothing tells which one is the shortcut."""

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.two(x)

    assert not places(Twins())


def test_places_that_are_taken_are_left_out():
    plugin = dict(cfg=dict(type='mmdet_attn.ECA'), position='after_conv3')
    assert not places(build('ResNet-50', plugins=[plugin]))
    host = build('ResNet-50')
    cfg = dict(type='mmdet_attn.ECA')
    insert(host, [dict(cfg=cfg, at=['layer[12].*.bn3', 'layer4'])])
    branch, level = places(host)
    assert branch.at == ['layer3.*.bn3', 'layer4.[01].bn3']
    assert level.at == 'layer3'


def test_a_module_that_sees_several_widths_is_refused():
    network = build('HRNet')
    at = 'stage4.0.relu'
    with pytest.raises(InputError, match='returns maps of several C'):
        insert(network, [dict(cfg=dict(type='mmdet_attn.ECA'), at=at)])


@pytest.mark.parametrize(
    ('names', 'at'),
    [
        ([f'layers.{i}.{j}' for i in '01' for j in '01'], 'layers.[01].?'),
        ([f'layers.{i}.0.body.0' for i in range(12)], 'layers.*.0.body.0'),
        ([f'layers.{i}' for i in range(12)], r're:layers\.\d+'),
        (
            ['layers.1.0.act', 'layers.2.0.act', 'layers.2.1.act'],
            ['layers.1.0.act', 'layers.2.*.act'],
        ),
        (['layers.10', 'layers.2'], ['layers.10', 'layers.2']),
    ],
)
def test_patterns(names, at):
    network = nn.Module()
    network.layers = nn.ModuleList(
        nn.ModuleList([Block(2, 2, 1), Block(2, 2, 1)]) for _ in range(12)
    )
    assert pattern(network, names) == at


def test_what_is_added():
    """Parameters and FLOPs are those of the plugins alone."""
    network = build('CSPDarknet')
    run, flow = trace(network), Flow()
    flow.watch(network, run.inputs)
    plugin = dict(type='mmdet_attn.ECA', identity_init=True)
    place = suggest(network, run, flow)[0]
    specs = [dict(cfg=plugin, at=place.at)]
    params, units, percent = added(network, specs, run.inputs)
    expected = [0, 0]
    for name in place.names:
        size = run.seen[name].after
        module = ECA(size[0], identity_init=True).eval()
        expected[0] += sum(p.numel() for p in module.parameters())
        expected[1] += flops(module, torch.zeros(1, *size))
    assert [params, units] == expected
    assert percent == 100 * units / flops(network, run.inputs)
    assert not hasattr(network, 'insertions')


def where(*arguments):
    code, output = run_here(TOOL, *arguments)
    assert code == 0, output
    return output


def built(output, folder, config):
    """The backbone and neck of the config that was printed."""
    text = output[output.index('_base_ = ') :]
    ast.parse(text)
    file = folder / 'mine.py'
    base = text.replace(f"'{config.name}'", repr(str(config)))
    file.write_text(base)
    init_default_scope('mmdet')
    return MODELS.build(Config.fromfile(file).model)


def test_tool(tmp_path):
    """It shows the tree and the places, and its config builds."""
    config = ROOT / 'configs/yolox_s.py'
    options = ['--cfg-options', 'model.backbone.widen_factor=0.25']
    neck = 'model.neck.in_channels=[64,128,256]'
    output = where(config, *options, neck, '--depth', '1')
    lines = [' '.join(line.split()) for line in output.splitlines()]
    assert 'backbone: CSPDarknet on 3 x 128 x 192' in lines
    assert 'stage2 Sequential 64 x 16 x 24 8 58,112' in lines
    assert 'neck: YOLOXPAFPN on 64 x 16 x 24, 128 x 8 x 12, 256 x 4 x 6' in (
        lines
    )
    assert "at='stage*.1.blocks.*.conv2'" in lines
    assert re.search(r'end of residual branches \(7\): \+\d+ param', output)
    assert "at='out_convs.?'" in lines
    model = built(output, tmp_path, config)
    assert len(model.backbone.insertions.items) == 7
    assert not hasattr(model.neck, 'insertions')


def test_tool_shows_a_place_of_yours(tmp_path):
    config = ROOT / 'configs/yolox_s.py'
    output = where(
        config,
        *['--at', 'stage4.1', 'out_convs.[01]', '--place', 'before'],
        *['--plugin', 'mmdet_attn.CBAM', 'reduction=8'],
    )
    lines = [line.split() for line in output.splitlines()]
    assert [line[:2] for line in lines if line[-2:] == ['CBAM', 'before']] == [
        ['1', 'SPPBottleneck'],
        ['0', 'ConvModule'],
        ['1', 'ConvModule'],
    ]
    assert 'before modules (2): +' in output
    model = built(output, tmp_path, config)
    (one,) = model.backbone.insertions.plugins
    assert one.channel.fc1.weight.shape[:2] == (64, 512)
    assert one is model.backbone.stage4[1].cbam
    assert len(model.neck.insertions.items) == 2


def test_tool_shows_plugins():
    output = where(ROOT / DETECTOR, '--part', 'backbone', '--depth', '9')
    assert 'Conv1d' not in output  # what is in a plugin
    shown = [line.split() for line in output.splitlines() if 'plugin' in line]
    assert ['eca', 'ECA', 'plugin'] in [[*w[:2], w[-1]] for w in shown]
    assert 'residual' not in output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--depth', '0'], '--depth must be 1 or more, got 0'),
        (['--place', 'before'], '--place before needs --at'),
        (['--part', 'necks'], 'has no such part with parameters, but backbo'),
        (['--plugin', 'mmdet_attn.ECCA'], 'did you mean mmdet_attn.ECA'),
        (['--plugin', 'mmdet_attn.ECA', 'k=3'], 'ECA k=3: its arguments are'),
        (['--plugin', 'mmdet_attn.LSKA'], 'also needs kernel_size: give'),
        (['--at', 'layer1.*.bn9'], 'The nearest names are layer1'),
        (['--at', 'fpn_convs'], "insert: 'fpn_convs' does not run"),
        (['--cfg-options', 'modle.neck=None'], 'the nearest is model.neck'),
        (['--at', 'layer4.*'], "matches 'layer4.0' and, inside of it"),
    ],
)
def test_bad_arguments(arguments, message):
    code, output = run_here(TOOL, ROOT / DETECTOR, *arguments)
    assert code == 2
    assert message in output
