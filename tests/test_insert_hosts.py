"""The base configs of configs/_base_/hosts, each in its networks."""

import functools
import sys

import pytest
import torch
from conftest import CONFIGS, ROOT, load_config_file
from mmdet.models.backbones import Darknet, MobileNetV2
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from modules import randomise
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmdet_attn
from mmdet_attn import insert
from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Attention

sys.path.insert(0, str(ROOT / 'docs'))

import tables

ROWS = tables.hosts()
PLUGINS = [dict(type='ECA'), dict(type='CBAM', reduction=1)]


class ShortDarknet(Darknet):
    """Its depth of 53 is the only one."""

    arch_settings = {  # noqa: RUF012
        53: ((1, 2, 1, 1, 1), ((32, 8), (8, 8), (8, 8), (8, 8), (8, 8)))
    }


class ShortMobileNetV2(MobileNetV2):
    """It has one depth only."""

    arch_settings = [  # noqa: RUF012
        [1, 16, 1, 1],
        [6, 24, 2, 2],
        *([6, 32, 1, stride] for stride in (2, 2, 1, 2, 1)),
    ]


BN = dict(type='BN')
# Narrow and shallow networks that have all the names of the real ones.
RESNET = dict(
    base_channels=8,
    stem_channels=8,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(0, 1),
    depth=50,
    norm_cfg=BN,
)
CSP = dict(deepen_factor=0.1, widen_factor=0.125, norm_cfg=BN)
NECK = dict(in_channels=[8, 16, 24], out_channels=8)
STAGES = {
    f'stage{n}': dict(
        num_modules=1,
        num_branches=n,
        block='BASIC' if n > 1 else 'BOTTLENECK',
        num_blocks=(1,) * n,
        num_channels=(8, 16, 24, 32)[:n],
    )
    for n in (1, 2, 3, 4)
}
SMALL = {
    'CSPDarknet': CSP,
    'CSPNeXt': CSP,
    'Darknet': dict(type=ShortDarknet),
    'SSDVGG': {},
    'HRNet': dict(extra=STAGES),
    'Res2Net': RESNET | dict(base_width=4),
    'ResNeXt': RESNET | dict(groups=2, base_width=4),
    'RegNet': dict(
        arch=dict(w0=8, wa=8.0, wm=2.0, group_w=8, depth=6, bot_mul=1.0)
    ),
    'ResNeSt': RESNET,
    'SwinTransformer': dict(
        embed_dims=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8)
    ),
    'PyramidVisionTransformerV2': dict(
        embed_dims=8, num_layers=(1, 1, 2, 1), mlp_ratios=(2, 2, 2, 2)
    ),
    'MobileNetV2': dict(type=ShortMobileNetV2, widen_factor=0.25),
    'EfficientNet': dict(arch='b0', out_indices=(2, 3), norm_cfg=BN),
    'FPN': dict(in_channels=[8, 8, 16, 24], out_channels=8),
    'PAFPN': dict(in_channels=[8, 8, 16, 24], out_channels=8),
    'YOLOXPAFPN': NECK,
    'CSPNeXtPAFPN': NECK | dict(norm_cfg=BN),
    'ChannelMapper': NECK | dict(out_channels=32),
    'RTMDetSepBNHead': dict(
        in_channels=8, feat_channels=8, num_classes=3, norm_cfg=BN
    ),
    'ResNetV1c': RESNET,
    'MixVisionTransformer': dict(embed_dims=8, num_layers=(1, 1, 2, 1)),
    'BiSeNetV1': dict(
        backbone_cfg=dict(
            type='mmseg.ResNet', depth=18, base_channels=8, norm_cfg=BN
        ),
        spatial_channels=(8, 8, 8, 16),
        context_channels=(16, 32, 64),
        norm_cfg=BN,
    ),
    'UNet': dict(
        base_channels=8,
        num_stages=3,
        strides=(1, 1, 1),
        enc_num_convs=(1, 1, 1),
        dec_num_convs=(1, 1),
        downsamples=(True, True),
        enc_dilations=(1, 1, 1),
        dec_dilations=(1, 1),
        norm_cfg=BN,
    ),
    'ConvNeXt': dict(arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])),
}
# Where the plugin is the last module of a residual branch.
BRANCHES = (
    'cspdarknet_blocks',
    'cspnext',
    'darknet53',
    'hrnet',
    'resnet',
    'swin',
    'pvtv2',
    'mobilenetv2',
    'efficientnet',
    'bisenetv1',
    'convnext',
)

every_row = pytest.mark.parametrize(
    'row', ROWS, ids=lambda row: f'{row.base}-{row.host}'
)


@functools.cache
def model_of(network):
    package = network.partition('::')[0]
    pytest.importorskip(f'{package}.models', exc_type=ImportError)
    return load_config_file(network).model


def part_of(row):
    """Where a detector has this host."""
    parts = model_of(row.network)
    return next(
        part
        for part in ('backbone', 'neck', 'bbox_head')
        if parts[part].type == row.host
    )


def build(row, cfg):
    init_default_scope(row.network.partition('::')[0])
    torch.manual_seed(0)
    return MODELS.build(cfg)


def leaf(row, folder):
    """What a user writes to have attention in a network."""
    part = part_of(row)
    file = folder / 'mine.py'
    file.write_text(
        f"_base_ = ['{row.network}',\n"
        f"    'mmdet_attn::_base_/hosts/{row.base}.py']\n"
        f'model = dict({part}=dict(\n'
        f'    host=_base_.model.{part}, **_base_.attention))\n'
    )
    return load_config_file(file).model


def small(row):
    """A small network like that of the config."""
    cfg = model_of(row.network)[part_of(row)].copy()
    cfg.pop('frozen_stages', None)
    if 'init_cfg' in cfg:
        cfg.init_cfg = None
    host = build(row, {**cfg, **SMALL[row.host]})
    for module in host.modules():
        if isinstance(module, _BatchNorm):
            randomise(module)
    return host


def with_attention(row, plugin):
    """The small network with what the base config says."""
    base = load_config_file(CONFIGS / '_base_' / 'hosts' / f'{row.base}.py')
    (spec,) = base.attention.plugins
    kind = f'mmdet_attn.{plugin["type"]}'
    cfg = plugin | dict(type=kind, identity_init=spec.cfg.identity_init)
    return insert(small(row), [{**spec, 'cfg': cfg}])


def images(row):
    """What the network takes."""
    torch.manual_seed(1)
    if part_of(row) == 'backbone':
        return torch.randn(2, 3, 64, 96)
    channels = SMALL[row.host]['in_channels']
    levels = channels if isinstance(channels, list) else [channels] * 3
    return tuple(
        torch.randn(2, count, 32 >> level, 48 >> level)
        for level, count in enumerate(levels)
    )


def maps(output):
    """The tensors of an output, in order."""
    if isinstance(output, Tensor):
        return [output]
    return [x for part in output for x in maps(part)]


def loss_of(host, x):
    torch.manual_seed(2)
    return sum((y * torch.randn_like(y)).mean() for y in maps(host(x)))


@every_row
def test_config_finds_all_places(row, tmp_path):
    """In the network of the config, as it is."""
    cfg = leaf(row, tmp_path)[part_of(row)]
    cfg.host.pop('init_cfg', None)
    host = build(row, cfg)
    assert type(host).__name__ == row.host
    assert len(host.insertions.items) == row.insertions
    modules = [m for m in host.modules() if type(m) is mmdet_attn.ECA]
    assert modules == host.insertions.plugins


@every_row
@pytest.mark.parametrize('plugin', PLUGINS, ids=lambda p: p['type'])
def test_host(row, plugin):
    """Plain weights load, the start is identical, it trains and exports."""
    plain, host = small(row), with_attention(row, plugin)
    for parameter in plain.parameters():
        parameter.data *= 1.1  # the seed gave both the same
    plugins = host.insertions.plugins
    assert type(host) is type(plain)
    fresh = {
        f'{name}.{key}'
        for name, module in host.named_modules()
        if module in plugins
        for key in module.state_dict()
        if not key.endswith('num_batches_tracked')
    }
    missing, unexpected = host.load_state_dict(
        plain.state_dict(), strict=False
    )
    assert not unexpected
    assert set(missing) == fresh

    x = images(row)
    for training in (False, True):
        outputs = []
        for network in (plain, host):
            network.train(training)
            torch.manual_seed(3)  # of paths that are dropped
            outputs.append(maps(network(x)))
        for one, other in zip(*outputs, strict=True):
            assert torch.equal(one, other)
    found = host.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, found[key]), key

    runs = []
    for module in plugins:
        module.register_forward_hook(lambda m, *_: runs.append(m))
    before = {k: v.clone() for k, v in host.state_dict().items()}
    optimizer = torch.optim.SGD(host.parameters(), lr=0.001)
    loss_of(host, x).backward()
    assert runs == [*dict.fromkeys(runs)]
    assert set(runs) == set(plugins)
    optimizer.step()
    alphas = [key for key in fresh if key.endswith('alpha')]
    assert len(alphas) >= len(plugins)
    for key in alphas:
        assert not torch.equal(before[key], host.state_dict()[key]), key

    # Away from zero, all parameters learn.
    optimizer.zero_grad()
    for module in plugins:
        randomise(module)
    loss_of(host, x).backward()
    for module in plugins:
        for name, parameter in module.named_parameters():
            assert parameter.grad.abs().sum() > 0, name

    host.eval()
    with torch.no_grad():
        program = torch.export.export(host, (x,))
        for one, other in zip(
            maps(program.module()(x)), maps(host(x)), strict=True
        ):
            torch.testing.assert_close(one, other)


def test_efficientnet_has_an_se_of_its_own():
    (row,) = (row for row in ROWS if row.base == 'efficientnet')
    with pytest.raises(InputError, match=r"already has 'se'.*postfix"):
        with_attention(row, dict(type='SE'))
    host = with_attention(row, dict(type='SE', postfix='_end'))
    assert type(host.layers[1][0].se_end) is mmdet_attn.SE


class Zero(Attention):
    """What is behind it gets nothing else from in front of it."""

    _abbr_ = 'zero'

    def forward(self, x):
        return x * 0


def with_zeros(row):
    base = load_config_file(CONFIGS / '_base_' / 'hosts' / f'{row.base}.py')
    (spec,) = base.attention.plugins
    host = insert(small(row), [{**spec, 'cfg': dict(type=Zero)}])
    host.eval()
    return host


@pytest.mark.parametrize(
    'row',
    [row for row in ROWS if row.base in BRANCHES],
    ids=lambda row: f'{row.base}-{row.host}',
)
def test_ends_a_residual_branch(row):
    """Without the branches, the blocks return what they add to them."""
    host = with_zeros(row)
    seen = {}
    blocks = {}
    for item in host.insertions.items:
        name = item.at.removesuffix('.layers.4')
        name = name if name != item.at else name.rpartition('.')[0]
        blocks[name] = host.get_submodule(name)
    for name, block in blocks.items():
        block.register_forward_hook(
            lambda m, args, kwargs, y, name=name: seen.update(
                {name: (kwargs.get('identity', args[0]).clone(), y.clone())}
            ),
            with_kwargs=True,
        )
    with torch.no_grad():
        host(images(row))
        for name, block in blocks.items():
            x, y = seen[name]
            expected = shortcut(block, x)
            if expected is None:
                expected = torch.zeros_like(y)
            torch.testing.assert_close(y, expected)


def shortcut(block, x):
    """What a block adds to its branch; None if it is no residual block."""
    if not getattr(block, 'add_identity', True):
        return None
    if not getattr(block, 'with_res_shortcut', True):
        return None
    if type(block).__name__ == 'SwinBlock':
        return block.ffn(block.norm2(x), identity=x)
    if getattr(block, 'downsample', None) is not None:
        x = block.downsample(x)
    return x.relu() if hasattr(block, 'relu') else x


@pytest.mark.parametrize(
    'row',
    [row for row in ROWS if row.base not in BRANCHES],
    ids=lambda row: f'{row.base}-{row.host}',
)
def test_is_behind_each_level(row):
    """Nothing of the network is left when the plugins return zeros."""
    host = with_zeros(row)
    with torch.no_grad():
        outputs = maps(host(images(row)))
    assert outputs
    assert host.insertions.items
    for y in outputs:
        # A head still adds its biases.
        assert torch.equal(y, y[..., :1, :1].expand_as(y))
        assert part_of(row) == 'bbox_head' or not y.any()


def test_more_arguments_are_those_of_the_config_of_a_host():
    """A detector adds `train_cfg` and `test_cfg` to the config of its head."""
    with pytest.raises(TypeError, match=r"unexpected arguments: \['place'\]"):
        insert(nn.Conv2d(3, 8, 1), [], place='before')
    cfg = dict(type='mmdet.FPN', in_channels=[8], num_outs=1)
    host = insert(cfg, [], out_channels=4)
    assert host.out_channels == 4
    assert cfg == dict(type='mmdet.FPN', in_channels=[8], num_outs=1)

    model = Config(dict(neck=dict(type='mmdet_attn.insert', host=cfg)))
    model.neck.update(plugins=[], out_channels=4, num_out=1)
    with (
        pytest.raises(InputError, match=r'neck: mmdet.FPN has no argument nu'),
        config_errors(model),
    ):
        MODELS.build(model.neck)


# Narrow detectors, the DETRs with one layer.
DETR = dict(
    backbone=dict(base_channels=16, stem_channels=16, init_cfg=None),
    neck=dict(host=dict(in_channels=[128, 256, 512])),
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=1),
    num_queries=20,
)
DETECTORS = {
    'mmdet::deformable_detr': DETR,
    'mmdet::dino': DETR,
    'mmdet::rtmdet': dict(
        backbone=CSP | dict(init_cfg=None),
        neck=NECK | dict(in_channels=[32, 64, 128], norm_cfg=BN),
        bbox_head=dict(host=SMALL['RTMDetSepBNHead']),
    ),
}


@pytest.mark.parametrize('name', DETECTORS)
def test_detector_trains(name, tmp_path):
    """The whole detector of mmdet's config, with attention in one part."""
    row = [r for r in ROWS if r.network.startswith(name)][-1]
    cfg = Config(dict(model=leaf(row, tmp_path)))
    cfg.merge_from_dict(dict(model=DETECTORS[name]))
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    insertions = getattr(model, part_of(row)).insertions
    assert len(insertions.items) == row.insertions

    batch = demo_mm_inputs(
        2, [[3, 64, 64]] * 2, num_classes=3, num_items=[2, 2]
    )
    data = model.data_preprocessor(batch, True)
    model.train()
    losses = model.loss(data['inputs'], data['data_samples'])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.parse_losses(losses)[0].backward()
    optimizer.step()
    # A level without objects does not teach its branch for boxes.
    moved = [plugin for plugin in insertions.plugins if plugin.alpha != 0]
    assert len(moved) > row.insertions // 2
