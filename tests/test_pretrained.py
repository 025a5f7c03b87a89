"""AttentionPretrained: every weight and every plugin accounted for."""

import copy
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, quick_options, run_here
from mmengine.config import Config
from mmengine.registry import MODELS
from modules import randomise
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.weights import pretrained
from mmdet_attn.weights.plugins import FrozenPluginHook, plugins_of

NARROW = dict(base_channels=16, stem_channels=16)
FOREIGN = dict(type='ContextBlock', ratio=1 / 4)
ECA_3557 = Config.fromfile(
    ROOT / 'configs/_base_/attention/eca.py'
).attention.plugins


def plugin(name, position='after_conv3', identity=True, **cfg):
    cfg = dict(type=f'mmdet_attn.{name}', **cfg)
    if identity:
        cfg['identity_init'] = True
    return dict(cfg=cfg, position=position)


def network(kind='mmdet.ResNet', depth=50, file=None, **kwargs):
    options = {k: kwargs.pop(k) for k in ('missing', 'prefix') if k in kwargs}
    init_cfg = None
    if file is not None:
        init_cfg = dict(
            type='mmdet_attn.AttentionPretrained',
            checkpoint=str(file),
            **options,
        )
    cfg = dict(type=kind, depth=depth, init_cfg=init_cfg, **NARROW)
    return MODELS.build(cfg | kwargs)


def save(path, model, wrap=None, prefix='', extra=()):
    """Random weights of a network, in the layout of some training script."""
    state = randomise(model).state_dict()
    state = {prefix + key: value for key, value in state.items()}
    for key in extra:
        state[key] = torch.ones(3)
    torch.save({wrap: state, 'epoch': 90} if wrap else state, path)
    return state


@pytest.mark.parametrize(
    ('kind', 'depth', 'position'),
    [
        ('mmdet.ResNet', 50, 'after_conv3'),
        ('mmdet_attn.AttentionResNet', 50, 'after_conv3'),
        ('mmdet_attn.AttentionResNet', 50, 'after_block'),
        ('mmdet_attn.AttentionResNet', 18, 'after_conv2'),
        ('mmseg.ResNetV1c', 50, 'after_conv3'),
    ],
)
@pytest.mark.parametrize('name', ['CBAM', 'GC', 'SE'])
def test_loads_everything(kind, depth, position, name, tmp_path):
    """Nothing that children initialise later overwrites what was loaded."""
    if kind.startswith('mmseg'):
        pytest.importorskip('mmseg.models', exc_type=ImportError)
    plugins = [plugin(name, position, identity=False)]
    donor = network(kind, depth, plugins=plugins)
    file = tmp_path / 'donor.pth'
    state = save(file, donor, 'state_dict', extra=['fc.weight', 'fc.bias'])
    plugins = [plugin(name, position, identity=name != 'GC')]
    host = network(kind, depth, file, plugins=plugins)
    host.init_weights()
    alphas = 0
    for key, value in host.state_dict().items():
        if key.endswith('.alpha'):
            alphas += 1
            assert value == 1
        else:
            assert torch.equal(value, state[key]), key
    blocks = sum(host.stage_blocks)
    assert alphas == blocks * {'CBAM': 2, 'GC': 0, 'SE': 1}[name]


@pytest.mark.parametrize(
    'kind', ['mmdet.ResNet', 'mmdet_attn.AttentionResNet']
)
def test_plain_weights_leave_the_network_as_it_is(kind, tmp_path):
    save(tmp_path / 'plain.pth', plain := network(kind), 'model')
    plugins = [*ECA_3557, plugin('CBAM', postfix='_x'), plugin('SimAM')]
    plugins.append(plugin('GC', identity=False))
    host = network(kind, file=tmp_path / 'plain.pth', plugins=plugins)
    host.init_weights()
    plain.eval(), host.eval()
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for ours, theirs in zip(host(x), plain(x), strict=True):
            assert torch.equal(ours, theirs)


def test_decides_nothing_for_the_process(tmp_path):
    """A library must not change how others load: only the tools do."""
    save(tmp_path / 'x.pth', network())
    before = dict(os.environ)
    network(file=tmp_path / 'x.pth').init_weights()
    assert dict(os.environ) == before
    torch.save({'x': Path}, tmp_path / 'x.pth')
    refused(tmp_path / 'x.pth', 'wants to import pathlib.Path')
    assert dict(os.environ) == before
    torch.load(tmp_path / 'x.pth', weights_only=False)


def test_report(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(
        pretrained, 'print_log', lambda text, logger: messages.append(text)
    )
    donor = network(plugins=[plugin('ECA', identity=False, kernel_size=3)])
    save(tmp_path / 'eca.pth', donor, extra=['fc.weight'])
    plugins = [
        plugin('ECA', kernel_size=3),
        plugin('CBAM'),
        plugin('SimAM', identity=False),
        plugin('BAM', identity=False),
    ]
    host = network(file=tmp_path / 'eca.pth', plugins=plugins, missing='fresh')
    host.init_weights()
    (text,) = messages
    for stage, count in enumerate((3, 4, 6, 3), 1):
        for name, status in (
            ('eca', 'loaded'),
            ('cbam', 'identity'),
            ('simam', 'no weights'),
            ('bam', 'fresh'),
        ):
            row = rf'layer{stage}\.\*\.{name} +{count}  {status}\n'
            assert re.search(row, text), (row, text)
    assert 'not used: fc' in text


@pytest.mark.parametrize(
    ('prefix', 'given'),
    [
        ('module.', None),
        ('backbone.', None),
        ('module.backbone.', None),
        ('student.', 'student'),
        ('student.', 'student.'),
    ],
)
def test_prefixes(prefix, given, tmp_path):
    others = ['neck.lateral.weight', 'head.fc.weight']
    extra = [] if prefix == 'module.' else others
    donor = network()
    state = save(tmp_path / 'x.pth', donor, 'state_dict', prefix, extra)
    host = network(file=tmp_path / 'x.pth', prefix=given)
    host.init_weights()
    for key, value in host.state_dict().items():
        assert torch.equal(value, state[prefix + key])


def refused(file, message, **kwargs):
    host = network(file=file, **kwargs)
    before = copy.deepcopy(host.state_dict())
    with pytest.raises(InputError, match=f'(?s){message}'):
        host.init_weights()
    for key, value in host.state_dict().items():
        assert torch.equal(value, before[key])


def test_wrong_kernel_is_named_by_stage(tmp_path):
    def eca(**changes):
        return [
            dict(p, cfg=p['cfg'] | {k: v[i] for k, v in changes.items()})
            for i, p in enumerate(ECA_3557)
        ]

    donor = network(plugins=eca(identity_init=[False] * 3))
    save(tmp_path / 'eca.pth', donor)
    message = 'stage 1 has 3, the config 5; stage 4 has 7, the config 9'
    wrong = eca(kernel_size=(5, 5, 9))
    refused(tmp_path / 'eca.pth', message, plugins=wrong)


def test_what_does_not_fit_is_refused(tmp_path):
    file = tmp_path / 'x.pth'
    save(file, network())
    cbam = [plugin('CBAM', identity=False)]
    message = (
        r'no weights for 16 plugin\(s\), layer1.0.cbam first, .* identity'
    )
    refused(file, message, plugins=cbam)
    host = network(file=file, plugins=cbam, missing='fresh')
    host.init_weights()
    assert not host.layer1[0].cbam.spatial.norm.weight.any()  # its own start
    for missing in ('identity', 'fresh'):
        refused(
            file,
            r'3 plugin\(s\) in a frozen stage .* \(layer1.0.cbam first\)',
            plugins=cbam,
            missing=missing,
            frozen_stages=1,
        )
    for kind, depth, name in (
        ('mmdet.ResNet', 101, 'ResNet-101'),
        ('mmdet.ResNet', 152, 'ResNet-152'),
        ('mmdet_attn.AttentionResNet', 18, 'ResNet-18'),
        ('mmdet.ResNetV1d', 50, 'ResNet-50 with a deep stem'),
    ):
        message = f'a ResNet-50 in the checkpoint, a {name} in the config'
        refused(file, message, kind=kind, depth=depth)
    refused(file, "no key that starts with 'teacher'", prefix='teacher')

    save(file, network(plugins=[plugin('SE', identity=False)]))
    refused(file, '64 in the checkpoint, not in .* with the plugin se')
    message = r'weight \(32\): \(4, 64\) in the checkpoint, \(8, 64\) in the'
    refused(file, message, plugins=[plugin('SE', reduction=8)])
    save(file, network(plugins=[plugin('SE')]))
    message = r'se\.alpha \(16\).* trained with identity_init=True'
    refused(file, message, plugins=[plugin('SE', identity=False)])

    state = network(plugins=[plugin('SE', identity=False)]).state_dict()
    for lost in ('layer3.2.conv2.weight', 'layer3.2.se.fc1.bias'):
        torch.save({k: v for k, v in state.items() if k != lost}, file)
        lost = re.sub(r'\d+(?=\.)', r'\\*', lost)
        message = rf'1 in the config, not in the checkpoint:\n  {lost} \(1\)'
        refused(file, message, plugins=[plugin('SE')])
    # A caffe-style file, another library's, none at all, a damaged one.
    torch.save({'res2_0_branch2a_w': torch.ones(1)}, file)
    refused(file, 'a caffe-style network')
    torch.save({'features.0.weight': torch.ones(1)}, file)
    refused(file, 'no ResNet, but features.0.weight, ')
    refused(tmp_path / 'no.pth', 'no.pth: no such checkpoint')
    file.write_bytes(b'PK\x03\x04 cut short')
    refused(file, 'not a checkpoint that torch can read')
    with pytest.raises(InputError, match="'identity' or 'fresh', got 'zero'"):
        network(file=file, missing='zero').init_weights()


def test_unconverted_names_are_refused(tmp_path):
    """Otherwise the plugin would stay at identity, and nobody know."""
    state = network().state_dict()
    state['layer1.0.cbam.ChannelGate.mlp.1.weight'] = torch.ones(4, 64)
    torch.save(state, tmp_path / 'x.pth')
    refused(
        tmp_path / 'x.pth',
        'cbam has the names of its authors in the checkpoint: convert it',
        plugins=[plugin('CBAM')],
    )


@pytest.mark.parametrize(
    ('depth', 'position'),
    [(18, 'after_conv2'), (50, 'after_block'), (50, 'after_conv1')],
)
def test_foreign_plugins_are_seen_everywhere(depth, position, tmp_path):
    """mmcv's block is not ours: nobody knows how it starts."""
    ours = dict(kind='mmdet_attn.AttentionResNet', depth=depth)
    save(tmp_path / 'x.pth', network(**ours))
    refused(
        tmp_path / 'x.pth',
        r'plugin\(s\) in a frozen stage .*layer1.0.context_block first',
        plugins=[dict(cfg=FOREIGN, position=position)],
        frozen_stages=1,
        **ours,
    )
    mobile = dict(
        type='mmdet_attn.insert',
        host=dict(type='mmdet.MobileNetV2'),
        plugins=[dict(cfg=FOREIGN, at='layer?.*.linear_conv')],
    )
    found = plugins_of(MODELS.build(mobile))
    assert len(found) == 17
    assert all(name.endswith('.context_block') for name in found)


def test_weightless_modules_are_not_left_off(tmp_path):
    """Weights converted from SimAM's authors say so in their meta."""
    content = dict(
        state_dict=network().state_dict(), meta=dict(source='simam')
    )
    torch.save(content, tmp_path / 'x.pth')
    refused(
        tmp_path / 'x.pth',
        'was trained with simam, and layer1.0.simam would stay at identity: '
        'set identity_init=False',
        plugins=[plugin('SimAM')],
    )
    off = [plugin('SimAM', identity=False)]
    network(file=tmp_path / 'x.pth', plugins=off).init_weights()


def test_fewer_stages_and_replaced_convolutions(tmp_path):
    save(tmp_path / 'x.pth', network())
    c4 = network(
        file=tmp_path / 'x.pth',
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
    )
    c4.init_weights()
    psa = dict(
        dcn=dict(type='mmdet_attn.PSAConv2d', groups=(1, 1, 1, 1)),
        stage_with_dcn=(True,) * 4,
    )
    refused(tmp_path / 'x.pth', 'no weights for 16 plugin', **psa)
    host = network(file=tmp_path / 'x.pth', missing='fresh', **psa)
    host.init_weights()
    assert torch.equal(
        host.layer1[0].conv1.weight,
        torch.load(tmp_path / 'x.pth')['layer1.0.conv1.weight'],
    )


def test_belongs_into_a_backbone():
    """In the init_cfg of a whole detector it would see other names."""
    detector = nn.ModuleDict(dict(backbone=nn.Linear(1, 1)))
    with pytest.raises(InputError, match='of a backbone, not of ModuleDict'):
        pretrained.AttentionPretrained('x.pth')(detector)


@pytest.mark.parametrize('foreign', [False, True])
def test_frozen_random_plugins_are_refused(foreign):
    """Whatever initialises, unless their weights were loaded."""
    plugins = [plugin('ECA', identity=False)]
    if foreign:
        plugins = [dict(cfg=FOREIGN, position='after_conv3')]
    model = network(plugins=plugins, frozen_stages=2)
    runner = SimpleNamespace(model=nn.ModuleDict(dict(backbone=model)))
    hook = FrozenPluginHook()
    hook.before_run(runner)
    message = r'7 plugin\(s\) in a frozen stage .*backbone\.layer1\.0\.'
    with pytest.raises(InputError, match=message):
        hook.before_train(runner)
    runner.model.load_state_dict(runner.model.state_dict())
    hook.before_train(runner)
    for options in (dict(frozen_stages=-1), dict(plugins=[plugin('ECA')])):
        model = network(**dict(plugins=plugins, frozen_stages=2) | options)
        FrozenPluginHook().before_train(SimpleNamespace(model=model))


def test_training_refuses_frozen_random_plugins(shapes, tmp_path):
    """mmcv's block: here nothing initialises it."""
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
_base_ = '{ROOT}/configs/demo/faster_rcnn_r50_eca_shapes.py'
model = dict(backbone=dict(frozen_stages=2, plugins=[dict(
    cfg={FOREIGN}, position='after_conv3')]))
"""
    )
    options = quick_options(shapes, tmp_path / 'work')
    code, output = run_here('tools/train.py', config, *options)
    assert code == 2, output
    assert '7 plugin(s) in a frozen stage have no weights' in output
    assert 'frozen_stages=0' in output
    assert 'Epoch(train)' not in output
