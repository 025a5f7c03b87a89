"""Where attention is put: our ResNet and neck, and the stock ones."""

import copy
import sys

import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.registry import MODELS, init_default_scope
from modules import randomise
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_attn import CBAM, ECA, SE, SEVar1
from mmdet_attn.config_files import load_config_file

NARROW = dict(base_channels=16, stem_channels=16)
IMAGES = (2, 3, 65, 97)


def resnet(kind='mmdet_attn.AttentionResNet', depth=50, **kwargs):
    torch.manual_seed(0)
    cfg = dict(type=kind, depth=depth, **NARROW) | kwargs
    return MODELS.build(cfg)


def plugin(name='ECA', position='after_conv3', **kwargs):
    cfg = dict(type=f'mmdet_attn.{name}', **kwargs.pop('cfg', {}))
    return dict(cfg=cfg, position=position, **kwargs)


def assert_equal_outputs(first, second, x=None):
    first.eval(), second.eval()
    x = torch.randn(IMAGES) if x is None else x
    with torch.no_grad():
        for one, other in zip(first(x), second(x), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ('depth', 'plugins'),
    [(18, None), (34, None), (50, None), (50, [plugin('CBAM')])],
)
@pytest.mark.parametrize('deep', [{}, dict(deep_stem=True, avg_down=True)])
def test_attention_resnet_is_resnet(depth, plugins, deep):
    """Same keys and outputs wherever the stock one can do the job."""
    stock = randomise(resnet('mmdet.ResNet', depth, plugins=plugins, **deep))
    ours = resnet(depth=depth, plugins=plugins, **deep)
    assert list(ours.state_dict()) == list(stock.state_dict())
    ours.load_state_dict(stock.state_dict())
    if plugins is None:
        assert_equal_outputs(ours, stock)
        return
    # Ours multiplies and adds in one pass.
    ours.double().eval(), stock.double().eval()
    x = torch.randn(IMAGES).double()
    with torch.no_grad():
        for one, other in zip(ours(x), stock(x), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize('depth', [18, 50])
def test_last_norms_start_at_zero(depth):
    """As stock's: its rule looks at the class of the block."""
    stock, ours = resnet('mmdet.ResNet', depth), resnet(depth=depth)
    for network in (stock, ours):
        network.init_weights()
    zeros, expected = (
        {k for k, v in network.state_dict().items() if not v.any()}
        for network in (ours, stock)
    )
    assert zeros == expected
    assert f'layer1.0.bn{2 if depth == 18 else 3}.weight' in zeros


def test_basic_block_positions():
    """After the first ReLU, after the second norm, after the last ReLU."""
    positions = ('after_conv1', 'after_conv2', 'after_block')
    network = resnet(
        depth=18,
        plugins=[
            plugin('SE', position, cfg=dict(postfix=f'_{i}'))
            for i, position in enumerate(positions)
        ],
    )
    randomise(network).eval()
    block = network.layer2[0]
    x = torch.randn(2, 16, 9, 8)
    y = block.se_0(block.bn1(block.conv1(x)).relu())
    y = block.se_1(block.bn2(block.conv2(y))) + block.downsample(x)
    torch.testing.assert_close(block(x), block.se_2(y.relu()))
    assert type(block.se_2) is SE
    assert 'layer1.1.se_0.fc1.weight' in network.state_dict()


@pytest.mark.parametrize('depth', [18, 50])
def test_after_block_is_after_the_last_relu(depth):
    stock = randomise(resnet('mmdet.ResNet', depth))
    network = resnet(
        depth=depth, plugins=[plugin('SEVar1', 'after_block', blocks=(-1,))]
    )
    network.load_state_dict(stock.state_dict())
    stock.eval(), network.eval()
    x = torch.randn(IMAGES)
    gate = SEVar1(network.layer1[0].widths()['after_block'])
    with torch.no_grad():
        assert torch.equal(network(x)[0], gate(stock(x)[0]))


def test_blocks_and_stages_choose():
    network = resnet(
        plugins=[
            plugin(blocks=(0, -1), stages=(False, True, True, False)),
            plugin('SE', blocks=(1,)),
        ]
    )
    keys = {k.split('.conv.')[0] for k in network.state_dict() if '.eca.' in k}
    assert keys == {f'layer{k}.eca' for k in ('2.0', '2.3', '3.0', '3.5')}
    ses = [n for n, m in network.named_modules() if type(m) is SE]
    assert ses == [f'layer{stage}.1.se' for stage in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ('depth', 'given', 'message'),
    [
        (18, plugin(), "after_block in ResNet-18, got 'after_conv3'"),
        (50, plugin(position='before'), "after_block in ResNet-50, got 'bef"),
        (50, plugin(blocks=(3,)), 'from -3 to 2 in stage 1, got 3'),
        (50, plugin(blocks=(-7,)), 'from -3 to 2 in stage 1, got -7'),
        (50, plugin(stages=(True,)), r'must have 4 values, got \(True,\)'),
        (50, plugin(block=(1,)), r"got \['block', 'cfg', 'position'\]"),
        (50, dict(cfg=dict(type='ECA')), r"got \['cfg'\]"),
    ],
)
def test_attention_resnet_refuses(depth, given, message):
    with pytest.raises(ValueError, match='AttentionResNet: .*' + message):
        resnet(depth=depth, plugins=[given])


def test_two_of_a_name_need_a_postfix():
    with pytest.raises(ValueError, match=r"'eca' in one block: .* postfix"):
        resnet(plugins=[plugin(), plugin(position='after_conv2')])


def trained_norms(network, cls=CBAM):
    """Stages in which norm layers of the plugins are in train mode."""
    return {
        name.split('.')[0]
        for name, module in network.named_modules()
        if type(module) is cls
        for norm in module.modules()
        if isinstance(norm, _BatchNorm) and norm.training
    }


def test_fresh_norms_train_under_norm_eval(tmp_path):
    """Stock keeps their statistics at 0 and 1 for ever."""
    kwargs = dict(frozen_stages=1, norm_eval=True, plugins=[plugin('CBAM')])
    stock = resnet('mmdet.ResNet', **kwargs)
    stock.train()
    assert not trained_norms(stock)

    network = resnet(**kwargs)
    assert not any(p.requires_grad for p in network.layer1.parameters())
    network.init_weights()
    assert network.train() is network
    assert trained_norms(network) == {'layer2', 'layer3', 'layer4'}
    assert not network.layer2[0].bn1.training
    assert trained_norms(copy.deepcopy(network)) == trained_norms(network)
    before = network.layer2[0].cbam.spatial.norm.running_var.clone()
    network(torch.randn(IMAGES))
    after = network.layer2[0].cbam.spatial.norm.running_var
    assert not torch.equal(before, after)
    network.eval()
    assert not trained_norms(network)

    # Weights of a plain ResNet leave them fresh, those with CBAM do not.
    for name, donor in (('plain', None), ('cbam', [plugin('CBAM')])):
        file = tmp_path / f'{name}.pth'
        donor = resnet('mmdet.ResNet', plugins=donor)
        torch.save(donor.state_dict(), file)
        init_cfg = dict(type='Pretrained', checkpoint=str(file))
        loaded = resnet(**kwargs, init_cfg=init_cfg)
        loaded.init_weights()
        loaded.train()
        fresh = {'layer2', 'layer3', 'layer4'} if name == 'plain' else set()
        assert trained_norms(loaded) == fresh
        # Resuming loads everything and changes nothing about that.
        loaded.load_state_dict(loaded.state_dict())
        loaded.train()
        assert trained_norms(loaded) == fresh


@pytest.mark.parametrize('depth', [18, 50])
def test_checkpointing_changes_nothing(depth):
    plugins = [plugin('CBAM', 'after_block'), plugin('SE', 'after_conv2')]
    plain = randomise(resnet(depth=depth, plugins=plugins, norm_eval=False))
    saving = resnet(
        depth=depth, plugins=plugins, norm_eval=False, with_cp=True
    )
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(IMAGES, dtype=torch.double, requires_grad=True)
    for network in (plain, saving):
        network.double().eval()
        sum(y.sum() for y in network(x)).backward()
    for one, other in zip(
        plain.parameters(), saving.parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, other.grad)


def mobilenet(plugin=None, at='layer?.*.linear_conv', **kwargs):
    torch.manual_seed(0)
    host = dict(type='mmdet.MobileNetV2', **kwargs)
    plugins = [dict(cfg=plugin, at=at)] if plugin else []
    return MODELS.build(
        dict(type='mmdet_attn.insert', host=host, plugins=plugins)
    )


def test_mobilenet_has_the_authors_kernels():
    """k = 1 below 96 output channels: 10 blocks, k = 3 in the other 7."""
    cfg = load_config_file(ROOT / 'configs/retinanet_mobilenetv2_eca.py')
    init_default_scope('mmdet')
    network = MODELS.build(cfg.model.backbone)
    kernels = {}
    for name, module in network.named_modules():
        if type(module) is ECA:
            block = network.get_submodule(name.rsplit('.', 1)[0])
            assert block.linear_conv.conv.out_channels == module.in_channels
            kernels.setdefault(module.in_channels, set()).add(
                module.conv.kernel_size[0]
            )
    assert kernels == {16: {1}, 24: {1}, 32: {1}, 64: {1}} | {
        c: {3} for c in (96, 160, 320)
    }
    # The keys of checkpoints that version 0.1.0 trained.
    added = network.state_dict().keys() - mobilenet().state_dict().keys()
    assert len(added) == 2 * 17
    sizes = {k: network.state_dict()[k].numel() for k in added if 'conv' in k}
    assert sum(sizes.values()) == 31
    assert {'layer1.0.eca.conv.weight', 'layer1.0.eca.alpha'} <= added


def test_own_initialisation_comes_after_the_hosts(tmp_path):
    """CBAM's last scale is zero, whatever the host does to norm layers."""
    kaiming = [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Constant', val=1, layer='_BatchNorm'),
    ]
    neck = dict(type='mmdet_attn.AttentionNeck', in_channels=[16, 32])
    cbam = dict(type='mmdet_attn.CBAM')
    network = mobilenet(cbam)
    hosts = [
        MODELS.build(neck | dict(plugin=cbam, init_cfg=kaiming)),
        network,
        resnet(depth=18, plugins=[plugin('CBAM', 'after_conv2')]),
    ]
    for host in hosts:
        randomise(host)
        host.init_weights()
        modules = [m for m in host.modules() if type(m) is CBAM]
        assert len(modules) in (2, 8, 17)
        assert not any(m.spatial.norm.weight.any() for m in modules)
    # Pretrained weights come last of all.
    donor = randomise(mobilenet(cbam))
    torch.save(donor.state_dict(), tmp_path / 'donor.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'donor.pth'))
    network = mobilenet(cbam, init_cfg=init_cfg)
    network.init_weights()
    for key, value in network.state_dict().items():
        assert torch.equal(value, donor.state_dict()[key]), key


@pytest.mark.parametrize('where', [0, 1])
def test_neck_with_fpn(where):
    """In a list with FPN, before or behind it, as a detector has it."""
    channels = [16, 32, 64]
    cfgs = [
        dict(
            type='mmdet.FPN', in_channels=channels, out_channels=8, num_outs=5
        )
    ]
    levels = [8] * 5 if where else channels
    plugin = dict(type='mmdet_attn.CBAM', reduction=4)
    ours = dict(type='mmdet_attn.AttentionNeck', in_channels=levels)
    cfgs.insert(where, ours | dict(plugin=plugin))
    neck = MODELS.build(cfgs)
    neck.init_weights()
    inputs = tuple(
        torch.randn(2, c, 32 // 2**i, 24 // 2**i)
        for i, c in enumerate(channels)
    )
    assert [y.shape[1] for y in neck(inputs)] == [8] * 5
    module, inputs = neck[where], neck[0](inputs) if where else inputs
    assert [level.channel.in_channels for level in module.levels] == levels
    for level, x, y in zip(module.levels, inputs, module(inputs), strict=True):
        torch.testing.assert_close(level(x), y)


def test_neck_refuses():
    build = dict(
        type='mmdet_attn.AttentionNeck', plugin=dict(type='mmdet_attn.SE')
    )
    for bad, shown in ((8, '8'), ([], r'\[\]')):
        with pytest.raises(ValueError, match=f'each level, got {shown}'):
            MODELS.build(build | dict(in_channels=bad))
    neck = MODELS.build(build | dict(in_channels=[8, 16]))
    with pytest.raises(ValueError, match='has 2 levels, got 1 feature maps'):
        neck([torch.randn(1, 8, 4, 4)])


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='mmdet.ResNeXt', depth=50, groups=32, base_width=4),
        dict(type='mmdet.Res2Net', depth=50, scales=4, base_width=26),
        dict(type='mmdet.ResNeSt', depth=50, radix=2, reduction_factor=4),
        dict(type='mmdet.RegNet', arch='regnetx_400mf'),
        dict(type='mmdet.ResNetV1d', depth=50),
    ],
    ids=lambda cfg: cfg['type'],
)
@pytest.mark.parametrize('name', ['ECA', 'CBAM', 'GC'])
def test_stock_backbones(cfg, name):
    """Their own positions suffice, with the right channels everywhere."""
    network = MODELS.build(cfg | dict(plugins=[plugin(name)]))
    network.init_weights()
    outputs = network(torch.randn(2, 3, 64, 96))
    for stage, output in enumerate(outputs, 1):
        for block in getattr(network, f'layer{stage}'):
            module = getattr(block, name.lower())
            assert module.in_channels == output.shape[1]
        assert output.isfinite().all()


def test_backbones_load_only_when_named():
    code = """
import sys, mmdet_attn
assert not {'mmdet', 'mmcv'} & set(sys.modules)
assert 'AttentionResNet' in dir(mmdet_attn)
assert not hasattr(mmdet_attn, 'AttentionVGG')
sys.modules['mmdet'] = None  # as if it were not installed
try:
    mmdet_attn.AttentionResNet
except ImportError as error:
    print(error)
"""
    output = run_tool(sys.executable, '-W', 'ignore', '-c', code)
    assert 'AttentionResNet needs MMDetection' in output
