"""Where attention is put: our backbones and neck, and the stock ones."""

import copy
import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS
from modules import randomise
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_attn import CBAM, ECA, SE, SEVar1

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


@pytest.mark.parametrize('depth', [18, 34, 50])
@pytest.mark.parametrize('plugins', [None, [plugin('CBAM')]])
@pytest.mark.parametrize('deep', [{}, dict(deep_stem=True, avg_down=True)])
def test_attention_resnet_is_resnet(depth, plugins, deep):
    """Same keys and outputs wherever the stock one can do the job."""
    if depth < 50 and plugins:
        return
    stock = randomise(resnet('mmdet.ResNet', depth, plugins=plugins, **deep))
    ours = resnet(depth=depth, plugins=plugins, **deep)
    assert list(ours.state_dict()) == list(stock.state_dict())
    ours.load_state_dict(stock.state_dict())
    assert_equal_outputs(ours, stock)


@pytest.mark.parametrize('depth', [18, 50])
def test_last_norms_start_at_zero(depth):
    """As stock's: its rule looks at the class of the block."""
    stock, ours = resnet('mmdet.ResNet', depth), resnet(depth=depth)
    for network in (stock, ours):
        network.init_weights()
    zeros = [
        {k for k, v in network.state_dict().items() if not v.any()}
        for network in (stock, ours)
    ]
    assert zeros[0] == zeros[1]
    assert f'layer1.0.bn{2 if depth == 18 else 3}.weight' in zeros[0]


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
        (
            18,
            plugin(position='after_conv3'),
            "after_conv1, after_conv2, after_block in ResNet-18, got 'after_c",
        ),
        (50, plugin(position='before'), "after_block in ResNet-50, got 'bef"),
        (50, plugin(blocks=(3,)), 'from -3 to 2 in stage 1, got 3'),
        (50, plugin(blocks=(-7,)), 'from -3 to 2 in stage 1, got -7'),
        (50, plugin(stages=(True,)), r'must have 4 values, got \(True,\)'),
        (
            50,
            dict(plugin(), block=(1,)),
            r"got \['block', 'cfg', 'position'\]",
        ),
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


def mobilenet(kind='mmdet_attn.AttentionMobileNetV2', **kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type=kind, **kwargs))


def test_mobilenet_has_the_authors_kernels():
    """k = 1 below 96 output channels: 10 blocks, k = 3 in the other 7."""
    network = mobilenet()
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
    stock = mobilenet('mmdet.MobileNetV2')
    added = network.state_dict().keys() - stock.state_dict().keys()
    assert len(added) == 17
    assert sum(network.state_dict()[key].numel() for key in added) == 31
    assert 'layer1.0.eca.conv.weight' in added


def test_mobilenet_position_and_other_modules():
    network = randomise(mobilenet(plugin=dict(type='mmdet_attn.SE')))
    network.eval()
    block = network.layer2[1]
    x = torch.randn(2, 24, 9, 8)
    y = block.depthwise_conv(block.expand_conv(x))
    y = x + block.se(block.linear_conv(y))
    torch.testing.assert_close(block(x), y)
    assert network.layer5[0].se.fc1.out_features == 96 // 16

    plain = mobilenet('mmdet.MobileNetV2')
    ours = mobilenet(plugin=dict(type='mmdet_attn.ECA', identity_init=True))
    ours.load_state_dict(plain.state_dict(), strict=False)
    assert_equal_outputs(ours, plain)
    saving = mobilenet(with_cp=True, frozen_stages=2)
    saving.train()
    x = torch.randn(IMAGES, requires_grad=True)
    sum(y.sum() for y in saving(x)).backward()
    assert saving.layer2[0].eca.conv.weight.grad is None
    assert saving.layer3[0].eca.conv.weight.grad.isfinite().all()


def test_mobilenet_attention_on_the_hidden_channels():
    """As Coordinate Attention has it: behind the depthwise convolution."""
    network = mobilenet(
        plugin=dict(type='mmdet_attn.SE'), position='after_conv2'
    )
    randomise(network).eval()
    block = network.layer2[1]
    x = torch.randn(2, 24, 9, 8)
    y = block.se(block.depthwise_conv(block.expand_conv(x)))
    torch.testing.assert_close(block(x), x + block.linear_conv(y))
    assert block.se.fc1.in_features == 144
    # The first block does not expand, so it has none.
    first, x = network.layer1[0], torch.randn(2, 32, 9, 8)
    assert not hasattr(first, 'se')
    y = first.linear_conv(first.depthwise_conv(x))
    torch.testing.assert_close(first(x), y)
    assert sum(type(m) is SE for m in network.modules()) == 16

    with pytest.raises(ValueError, match="after_conv3, got 'after_block'"):
        mobilenet(position='after_block')


def test_own_initialisation_comes_after_the_hosts(tmp_path):
    """CBAM's last scale is zero, whatever the host does to norm layers."""
    kaiming = [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Constant', val=1, layer='_BatchNorm'),
    ]
    neck = dict(type='mmdet_attn.AttentionNeck', in_channels=[16, 32])
    cbam = dict(type='mmdet_attn.CBAM')
    network = mobilenet(plugin=cbam)
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
    donor = randomise(mobilenet(plugin=cbam))
    torch.save(donor.state_dict(), tmp_path / 'donor.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'donor.pth'))
    network = mobilenet(plugin=cbam, init_cfg=init_cfg)
    network.init_weights()
    for key, value in network.state_dict().items():
        assert torch.equal(value, donor.state_dict()[key]), key


@pytest.mark.parametrize('where', ['before', 'after'])
def test_neck_with_fpn(where):
    """In a list with FPN, as a detector's config has it."""
    channels = [16, 32, 64]
    fpn = dict(
        type='mmdet.FPN', in_channels=channels, out_channels=8, num_outs=5
    )
    levels = channels if where == 'before' else [8] * 5
    ours = dict(
        type='mmdet_attn.AttentionNeck',
        in_channels=levels,
        plugin=dict(type='mmdet_attn.CBAM', reduction=4),
    )
    neck = MODELS.build([ours, fpn] if where == 'before' else [fpn, ours])
    neck.init_weights()
    inputs = tuple(
        torch.randn(2, c, 32 // 2**i, 24 // 2**i)
        for i, c in enumerate(channels)
    )
    outputs = neck(inputs)
    assert [y.shape[1] for y in outputs] == [8] * 5
    module = neck[0 if where == 'before' else 1]
    assert [level.channel.in_channels for level in module.levels] == levels
    weights = {id(level.channel.fc1.weight) for level in module.levels}
    assert len(weights) == len(levels)
    for level, x, y in zip(
        module.levels,
        inputs if where == 'before' else neck[0](inputs),
        module(inputs if where == 'before' else neck[0](inputs)),
        strict=True,
    ):
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
        dict(
            type='mmdet.RegNet',
            arch=dict(
                w0=88, wa=26.31, wm=2.25, group_w=48, depth=25, bot_mul=1
            ),
        ),
        dict(type='mmdet.ResNetV1d', depth=50),
    ],
    ids=lambda cfg: cfg['type'],
)
@pytest.mark.parametrize(
    'name',
    [
        'ECA',
        pytest.param('CBAM', marks=pytest.mark.slow),
        pytest.param('GC', marks=pytest.mark.slow),
    ],
)
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


def run_python(code):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_mmsegmentation_needs_no_import_line():
    """Its ResNet takes three modules by dotted name alone."""
    pytest.importorskip('mmseg', exc_type=ImportError)
    out = run_python(
        """
import sys, torch, mmseg.models
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
init_default_scope('mmseg')
assert 'mmdet_attn' not in sys.modules
model = MODELS.build(dict(
    type='ResNetV1c', depth=50, base_channels=16, stem_channels=16,
    dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1),
    plugins=[
        dict(cfg=dict(type='mmdet_attn.ECA'), position='after_conv3'),
        dict(cfg=dict(type='mmdet_attn.CBAM'), position='after_conv2'),
        dict(cfg=dict(type='mmdet_attn.NonLocal'), position='after_conv3',
             stages=(False, False, False, True)),
    ]))
model.init_weights()
print([tuple(y.shape) for y in model(torch.randn(1, 3, 64, 64))])
print(sorted({k.split('.')[2] for k in model.state_dict()
              if k.split('.')[2:] and 'conv' not in k.split('.')[2]}))
"""
    )
    assert '(1, 512, 8, 8)' in out
    for key in ('eca', 'cbam', 'non_local'):
        assert f"'{key}'" in out


@pytest.mark.slow
def test_mmpretrain_classifier():
    """ImageClassifier over mmdet's ResNet, which has the plugins it lacks."""
    try:
        import mmpretrain.models  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f'mmpretrain does not import here: {error}')
    out = run_python(
        """
import torch, mmpretrain.models
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
init_default_scope('mmpretrain')
model = MODELS.build(dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmdet.ResNet', depth=50, out_indices=(3,),
        plugins=[dict(cfg=dict(type='mmdet_attn.ECA'),
                      position='after_conv3')]),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=2048)))
print(tuple(model(torch.randn(2, 3, 64, 64)).shape))
"""
    )
    assert '(2, 7)' in out


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
    assert 'AttentionResNet needs MMDetection' in run_python(code)


class TutorialNet(nn.Module):
    """Three convolution blocks with CBAM after each, as tutorials have it."""

    def __init__(self):
        super().__init__()
        layers, previous = [], 3
        for channels in (32, 64, 128):
            layers += [
                nn.Conv2d(previous, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                CBAM(channels),
                nn.MaxPool2d(2),
            ]
            previous = channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(128, 2)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def test_plain_pytorch_network_learns():
    """Stripes along one axis or the other, told apart from nothing."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    waves = torch.sin(torch.arange(16) * 1.5 + torch.rand(64, 1) * 6)
    images = waves[:, None, :, None].expand(64, 3, 16, 16).clone()
    images[labels == 1] = images[labels == 1].transpose(2, 3)
    images += 0.5 * torch.randn_like(images)
    model = TutorialNet()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gate = model.features[3].spatial.norm.weight
    assert gate != 0  # it starts there, and learns
    model.eval()
    accuracy = (model(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.9
