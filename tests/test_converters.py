"""Official checkpoints become ours, tensor by tensor."""

import re

import layouts
import pytest
import torch
from conftest import ROOT, run_here
from layouts import fill, mobilenet, resnet
from mmengine.registry import MODELS

from mmdet_attn import __version__
from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters import SOURCES
from mmdet_attn.weights.converters.rename import renamed
from mmdet_attn.weights.converters.target import (
    check_fit,
    target_cfg,
    untested_differences,
)

GATES = ('ChannelGateH', 'ChannelGateW', 'SpatialGate')
SE = layouts.squeeze('se.fc1', 'se.fc2', lambda c: max(8, c // 16))
MODULE_SE = layouts.squeeze(
    'se_module.fc1', 'se_module.fc2', lambda c: c // 16
)
MMPRETRAIN_SE = layouts.squeeze(
    'se_layer.conv1.conv', 'se_layer.conv2.conv', lambda c: c // 16
)
ECA_MOBILENET = (layouts.eca_block, 'features.18', 'classifier.1')
CA_MOBILENET = (layouts.coordatt_block, 'conv', 'classifier.1')
CONFIG = ROOT / 'configs/faster_rcnn_r50'
TOOL = 'tools/model_converters/convert_checkpoint.py'
STOCK, OURS = 'mmdet.ResNet', 'mmdet_attn.AttentionResNet'

# Source, keys, what is dropped, the backbone, and some tensors' new names.
CASES = {
    'ecanet 18': (
        'ecanet',
        resnet(18, layouts.eca((3, 5, 7, 7))),
        r'fc\.',
        dict(type=OURS, depth=18),
        {'layer3.1.eca.conv.weight': 'layer3.1.eca.conv.weight'},
    ),
    'ecanet 50': (
        'ecanet',
        resnet(50, layouts.eca((3, 5, 5, 7))),
        r'fc\.',
        dict(type=STOCK, depth=50),
        {'layer3.5.bn3.bias': 'layer3.5.bn3.bias'},
    ),
    'ecanet mobilenet': (
        'ecanet',
        mobilenet(*ECA_MOBILENET),
        r'classifier\.',
        dict(type='mmdet_attn.AttentionMobileNetV2'),
        {
            'features.0.1.bias': 'conv1.bn.bias',
            'features.1.conv.0.1.bias': 'layer1.0.depthwise_conv.bn.bias',
            'features.1.conv.1.weight': 'layer1.0.linear_conv.conv.weight',
            'features.1.conv.3.conv.weight': 'layer1.0.eca.conv.weight',
            'features.3.conv.0.1.weight': 'layer2.1.expand_conv.bn.weight',
            'features.4.conv.1.1.bias': 'layer3.0.depthwise_conv.bn.bias',
            'features.14.conv.3.running_var': (
                'layer6.0.linear_conv.bn.running_var'
            ),
            'features.17.conv.4.conv.weight': 'layer7.0.eca.conv.weight',
            'features.18.0.weight': 'conv2.conv.weight',
        },
    ),
    'cbam': (
        'cbam',
        resnet(18, layouts.cbam),
        r'fc\.',
        dict(type=OURS, depth=18),
        {
            'layer1.0.cbam.ChannelGate.mlp.1.bias': (
                'layer1.0.cbam.channel.fc1.bias'
            ),
            'layer1.0.cbam.ChannelGate.mlp.3.weight': (
                'layer1.0.cbam.channel.fc2.weight'
            ),
            'layer4.1.cbam.SpatialGate.spatial.bn.bias': (
                'layer4.1.cbam.spatial.norm.bias'
            ),
        },
    ),
    'bam': (
        'bam',
        layouts.bam(50),
        r'fc\.',
        dict(type=OURS, depth=50),
        {
            'bam1.channel_att.gate_c.gate_c_fc_0.weight': (
                'layer1.2.bam.channel.0.weight'
            ),
            'bam2.channel_att.gate_c.gate_c_fc_final.bias': (
                'layer2.3.bam.channel.3.bias'
            ),
            'bam3.spatial_att.gate_s.gate_s_bn_di_1.bias': (
                'layer3.5.bam.spatial.7.bias'
            ),
            'bam3.spatial_att.gate_s.gate_s_conv_di_0.weight': (
                'layer3.5.bam.spatial.3.weight'
            ),
        },
    ),
    'fcanet': (
        'fcanet',
        resnet(50, layouts.fca),
        r'fc\.|.*dct_layer',
        dict(type=STOCK, depth=50),
        {
            'layer1.0.att.fc.0.weight': 'layer1.0.fca.fc1.weight',
            'layer1.0.att.fc.2.weight': 'layer1.0.fca.fc2.weight',
        },
    ),
    'triplet': (
        'triplet',
        resnet(18, layouts.triplet(GATES, 'spatial')),
        r'fc\.',
        dict(type=OURS, depth=18),
        {
            f'layer1.0.triplet_attention.{gate}.spatial.bn.bias': (
                f'layer1.0.tripletattention.{branch}.norm.bias'
            )
            for gate, branch in zip(GATES, ('cw', 'hc', 'hw'), strict=True)
        },
    ),
    'triplet, newer': (
        'triplet',
        resnet(50, layouts.triplet(('cw', 'hc', 'hw'), 'conv')),
        r'fc\.',
        dict(type=STOCK, depth=50),
        {
            'layer1.0.triplet_attention.hc.conv.conv.weight': (
                'layer1.0.tripletattention.hc.conv.weight'
            )
        },
    ),
    'simam': (
        'simam',
        resnet(50, conv2=lambda name, c: layouts.plain3x3(f'{name}.0', c)),
        r'fc\.',
        dict(type=STOCK, dcn=dict(type='mmdet_attn.SimAMConv2d', lambda_=0.1)),
        {'layer2.3.conv2.0.weight': 'layer2.3.conv2.weight'},
    ),
    'gcnet': (
        'gcnet',
        layouts.gc_detector(),
        r'neck|bbox_head',
        dict(type=STOCK, depth=50),
        {
            'backbone.bn1.bias': 'bn1.bias',
            'backbone.layer2.0.context_block.channel_add_conv.3.bias': (
                'layer2.0.gc.channel_add_conv.3.bias'
            ),
            'backbone.layer2.0.context_block.conv_mask.weight': (
                'layer2.0.gc.conv_mask.weight'
            ),
        },
    ),
    'gsop': (
        'gsop',
        resnet(50, layouts.gsop),
        r'fc\.',
        dict(type=OURS, strides=(1, 2, 2, 1)),
        {
            'layer1.2.conv_for_DR.bias': 'layer1.2.gsop.reduce.bias',
            'layer1.2.bn_for_DR.bias': 'layer1.2.gsop.norm.bias',
            'layer2.3.row_bn.bias': 'layer2.3.gsop.row_norm.bias',
            'layer3.5.row_conv_group.bias': 'layer3.5.gsop.row_conv.bias',
            'layer4.2.fc_adapt_channels.bias': 'layer4.2.gsop.expand.bias',
        },
    ),
    'epsanet': (
        'epsanet',
        resnet(50, conv2=layouts.psa),
        r'fc\.',
        dict(
            type=STOCK,
            dcn=dict(
                type='mmdet_attn.PSAConv2d',
                kernel_sizes=(3, 5, 7, 9),
                groups=(1, 4, 8, 16),
                reduction=16,
            ),
        ),
        {
            'layer1.0.conv2.conv_1.weight': 'layer1.0.conv2.convs.0.weight',
            'layer1.0.conv2.conv_4.weight': 'layer1.0.conv2.convs.3.weight',
            'layer4.2.conv2.se.fc2.bias': 'layer4.2.conv2.se.fc2.bias',
        },
    ),
    'coordatt': (
        'coordatt',
        mobilenet(*CA_MOBILENET),
        r'classifier\.',
        dict(position='after_conv2'),
        {
            'features.1.conv.3.weight': 'layer1.0.linear_conv.conv.weight',
            'features.2.conv.6.bn1.bias': 'layer2.0.coordatt.norm.bias',
            'features.2.conv.6.conv2.bias': 'layer2.0.coordatt.conv_h.bias',
            'features.2.conv.6.conv3.bias': 'layer2.0.coordatt.conv_w.bias',
            'features.2.conv.7.weight': 'layer2.0.linear_conv.conv.weight',
            'conv.1.bias': 'conv2.bn.bias',
        },
    ),
    'timm seresnet 18': (
        'timm',
        resnet(18, SE),
        r'fc\.',
        dict(type=OURS, depth=18),
        {'layer1.0.se.fc1.weight': 'layer1.0.se.fc1.weight'},
    ),
    'timm ecaresnet d': (
        'timm',
        resnet(50, layouts.eca((5, 5, 5, 7), 'se'), deep=True),
        r'fc\.',
        dict(type='mmdet.ResNetV1d', depth=50),
        {
            'conv1.4.bias': 'stem.4.bias',
            'conv1.6.weight': 'stem.6.weight',
            'bn1.bias': 'stem.7.bias',
            'layer1.0.se.conv.weight': 'layer1.0.eca.conv.weight',
            'layer2.0.downsample.1.weight': 'layer2.0.downsample.1.weight',
        },
    ),
    'timm legacy_seresnet': (
        'timm',
        resnet(50, MODULE_SE, stem='layer0.', classifier='last_linear'),
        'last_linear',
        dict(type=STOCK, style='caffe'),
        {
            'layer0.conv1.weight': 'conv1.weight',
            'layer0.bn1.bias': 'bn1.bias',
            'layer1.0.se_module.fc2.bias': 'layer1.0.se.fc2.bias',
        },
    ),
    'mmpretrain': (
        'mmpretrain',
        layouts.mmpretrain(resnet(50, MMPRETRAIN_SE)),
        r'head\.',
        dict(type=STOCK, depth=50),
        {
            'backbone.layer1.0.se_layer.conv1.conv.weight': (
                'layer1.0.se.fc1.weight'
            ),
            'backbone.layer1.0.se_layer.conv2.conv.bias': (
                'layer1.0.se.fc2.bias'
            ),
        },
    ),
    'torchvision': (
        'torchvision',
        resnet(101),
        r'fc\.',
        dict(type=STOCK, depth=101),
        {'layer3.22.conv3.weight': 'layer3.22.conv3.weight'},
    ),
}


def test_exactly_one_rule_fits_a_key():
    state = {'conv1.weight': torch.zeros(1)}
    assert list(renamed(state, {r'conv1\.weight': 'stem.weight'})) == [
        'stem.weight'
    ]
    both = {r'conv1\.weight': 'stem.weight', r'conv\d\.weight': None}
    for rules in (both, {}):
        with pytest.raises(InputError, match=r'conv1\.weight'):
            renamed(state, rules)


def test_every_source_has_a_case():
    # The detectors have a file of their own: test_legacy_weights.py.
    elsewhere = {'ecanet-coco'}
    assert {case[0] for case in CASES.values()} == SOURCES.keys() - elsewhere


@pytest.mark.parametrize('case', CASES)
def test_round_trip(case):
    """All tensors arrive, under the right names, and no others."""
    source, keys, dropped, backbone, names = CASES[case]
    state = fill(keys)
    converted = SOURCES[source].convert(state)
    kept = {k: v for k, v in state.items() if not re.match(dropped, k)}

    def content(tensors):
        return sorted((float(v.max()), v.numel()) for v in tensors.values())

    assert content(converted) == content(kept)
    for value in converted.values():
        assert value.min() == value.max()
    for old, new in names.items():
        assert converted[new].max() == state[old].max(), old

    cfg = SOURCES[source].backbone_cfg(state)
    assert cfg | backbone == cfg
    with torch.device('meta'):
        model = MODELS.build(cfg)
    model.load_state_dict(converted, strict=True, assign=True)


def test_coordatt_network_has_its_parameters():
    _, keys, _, _, _ = CASES['coordatt']
    with torch.device('meta'):
        model = MODELS.build(SOURCES['coordatt'].backbone_cfg(fill(keys)))
    count = sum(p.numel() for p in model.parameters())
    assert count + 1280 * 1000 + 1000 == 3_950_648


def test_kernel_sizes_as_config():
    cfg = SOURCES['ecanet'].backbone_cfg(fill(CASES['ecanet 50'][1]))
    plugins = cfg['plugins']
    assert [p['cfg']['kernel_size'] for p in plugins] == [3, 5, 7]
    assert plugins[1]['stages'] == (False, True, True, False)
    assert {p['position'] for p in plugins} == {'after_conv3'}
    mobile = SOURCES['ecanet'].backbone_cfg(fill(CASES['ecanet mobilenet'][1]))
    assert mobile['plugin'] == dict(type='mmdet_attn.ECA', kernel_size=3)
    assert mobile['narrow'] == dict(kernel_size=1)


def without(state, pattern):
    return {k: v for k, v in state.items() if not re.match(pattern, k)}


@pytest.mark.parametrize('case', CASES)
def test_broken_checkpoints_are_refused(case):
    source, keys, _, _, _ = CASES[case]
    module = SOURCES[source]
    state = fill(keys)
    strange = state | {'layer1.0.attn.weight': torch.zeros(1)}
    with pytest.raises(
        InputError, match=rf'(?s){source}: 1 keys .*layer\*\.\*\.attn\.weight'
    ):
        module.convert(strange)
    with pytest.raises(InputError, match=f'{source}: no weights'):
        module.convert({})
    block = r'(backbone\.)?layer2\.1\.|features\.5\.'
    with pytest.raises(InputError, match=r'3, 3, 6, 3|2, 1, 2|3, 3, 23|no fe'):
        module.backbone_cfg(without(state, block))


@pytest.mark.parametrize(
    ('case', 'lost', 'message'),
    [
        ('ecanet 18', r'.*eca', r'no eca.* in stage 1, 2, 3, 4'),
        ('ecanet 18', r'layer2.*eca', r'no eca.* in stage 2'),
        ('bam', 'bam2', 'bam: no channel_att.* in stage 2'),
        ('gcnet', '.*context_block', 'no context_block.* in stage 1, 2, 3, 4'),
        ('epsanet', '.*conv_3', 'no layer1.0.conv2.conv_3'),
        ('coordatt', r'.*conv\.6\.', 'no features.17.conv.6.conv1.weight'),
        ('timm seresnet 18', r'.*\.se\.', 'no se.* in stage 1, 2, 3, 4'),
    ],
)
def test_missing_modules_are_refused(case, lost, message):
    source, keys, _, _, _ = CASES[case]
    with pytest.raises(InputError, match=message):
        SOURCES[source].backbone_cfg(without(fill(keys), lost))


def test_what_no_host_takes_is_refused():
    sizes = fill(CASES['ecanet 18'][1])
    sizes['layer2.1.eca.conv.weight'] = torch.zeros(1, 1, 9)
    with pytest.raises(InputError, match='says 5, 9 in stage 2'):
        SOURCES['ecanet'].backbone_cfg(sizes)
    sizes = fill(CASES['ecanet mobilenet'][1])
    sizes['features.12.conv.4.conv.weight'] = torch.zeros(1, 1, 1)
    with pytest.raises(InputError, match=r'\[1\] in blocks of .* \[1, 3\]'):
        SOURCES['ecanet'].backbone_cfg(sizes)
    frequencies = fill(CASES['fcanet'][1])
    key = 'layer2.0.att.dct_layer.weight'
    frequencies[key] = frequencies[key].transpose(1, 2)
    with pytest.raises(InputError, match=f'{key} is not the DCT'):
        SOURCES['fcanet'].convert(frequencies)
    tiered = fill(CASES['timm ecaresnet d'][1])
    tiered['conv1.0.weight'] = torch.zeros(24, 3, 3, 3)
    with pytest.raises(InputError, match=r'stem of \[24, 32, 64\]'):
        SOURCES['timm'].backbone_cfg(tiered)
    legacy = fill(resnet(18, MODULE_SE, stem='layer0.'))
    with pytest.raises(InputError, match='legacy_seresnet18, which has one'):
        SOURCES['timm'].backbone_cfg(legacy)
    for source in ('simam', 'epsanet', 'gcnet'):
        with pytest.raises(InputError, match=f'{source}: a ResNet-18'):
            SOURCES[source].backbone_cfg(fill(resnet(18)))
    both = {
        'layer0.conv1.weight': torch.zeros(1),
        'conv1.weight': torch.zeros(1),
    }
    with pytest.raises(InputError, match='both become conv1'):
        SOURCES['timm'].convert(both)


def test_config_decides_what_fits():
    """Kernel sizes, depth, and modules that plain weights leave out."""
    config = ROOT / 'configs/mask_rcnn_r18_eca.py'
    _, keys, _, _, _ = CASES['ecanet 18']
    state = SOURCES['ecanet'].convert(fill(keys))
    cfg = target_cfg(str(config), state)
    check_fit(cfg, state)
    other = SOURCES['ecanet'].convert(
        fill(resnet(18, layouts.eca((3, 3, 7, 7))))
    )
    with pytest.raises(InputError, match='stage 2 has 3, the config 5') as e:
        check_fit(cfg, other)
    assert '--non-strict' not in str(e.value)
    with pytest.raises(InputError, match=r'a ResNet-18 in .* a ResNet-34 in'):
        check_fit(dict(cfg, depth=34), state)
    lost = without(state, r'layer3\.0\.bn1\.weight')
    with pytest.raises(InputError, match='1 in the config, not in the check'):
        check_fit(cfg, lost)

    plain = SOURCES['torchvision'].convert(fill(resnet(18)))
    check_fit(cfg, plain, plain=True)
    with pytest.raises(InputError, match='trained without the plugin eca'):
        check_fit(cfg, plain)
    paper = dict(cfg=dict(type='mmdet_attn.SE'), position='after_conv2')
    with pytest.raises(InputError, match='trained without the plugin se'):
        check_fit(dict(cfg, plugins=[paper]), plain, plain=True)
    gc = dict(cfg=dict(type='mmdet_attn.GC'), position='after_conv2')
    check_fit(dict(cfg, plugins=[gc]), plain, plain=True)
    simam = dict(cfg=dict(type='mmdet_attn.SimAM', identity_init=True))
    simam['position'] = 'after_conv2'
    check_fit(dict(cfg, plugins=[simam]), plain, plain=True)
    with pytest.raises(InputError, match='set identity_init=False'):
        check_fit(dict(cfg, plugins=[simam]), plain, source='simam')
    with pytest.raises(InputError, match='trained without the plugin simam'):
        check_fit(dict(cfg, plugins=[simam]), plain)


def test_differences_that_no_shape_shows():
    caffe, simam, gsop = (
        SOURCES[CASES[case][0]].backbone_cfg(fill(CASES[case][1]))
        for case in ('timm legacy_seresnet', 'simam', 'gsop')
    )
    plain = dict(type='ResNet', depth=50)
    assert (
        untested_differences(plain, plain)
        == untested_differences(simam, simam)
        == []
    )
    assert untested_differences(caffe, plain) == [
        'trained with style=caffe, the config has pytorch'
    ]
    assert untested_differences(simam, plain) == [
        'trained with dcn.lambda_=0.1, the config has None'
    ]
    assert untested_differences(gsop, dict(plain, strides=[1, 2, 2, 2])) == [
        'trained with strides=(1, 2, 2, 1), the config has (1, 2, 2, 2)'
    ]
    files = ('simam', 'gsop')
    configs = [target_cfg(f'{CONFIG}_{name}.py', {}) for name in files]
    assert untested_differences(simam, configs[0]) == []
    assert len(untested_differences(gsop, configs[1])) == 1


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """The file of a MobileNetV2, as its authors' script saves it."""
    keys = mobilenet(*ECA_MOBILENET)
    state = {f'module.{key}': value for key, value in fill(keys).items()}
    file = tmp_path_factory.mktemp('official') / 'eca.pth.tar'
    torch.save(dict(epoch=3, arch='eca', state_dict=state), file)
    return file


def tool(*arguments):
    """Exit status and output of the tool."""
    return run_here(TOOL, *arguments)


@pytest.mark.parametrize('config', [False, True])
def test_tool_converts(official, tmp_path, config):
    out = tmp_path / 'out.pth'
    more = ()
    if config:
        more = '--config', ROOT / 'configs/retinanet_mobilenetv2_eca.py'
    status, shown = tool('ecanet', official, out, *more)
    assert status == 0, shown
    flat = re.sub(r'[ │]+', ' ', shown)
    assert 'features.*.conv.4.conv.weight layer*.*.eca.conv.weight 16' in flat
    assert 'classifier.1.weight dropped 1' in flat
    assert "narrow={'kernel_size': 1}" in shown
    content = torch.load(out, weights_only=True)
    assert content['meta']['source'] == 'ecanet'
    assert content['meta']['input'] == 'eca.pth.tar'
    assert re.fullmatch('[0-9a-f]{64}', content['meta']['sha256'])
    assert content['meta']['mmdet_attn'] == __version__
    assert list(tmp_path.iterdir()) == [out]
    assert len(content['state_dict']) == len(mobilenet(*ECA_MOBILENET)) - 2

    # A backbone takes it as its pretrained weights.
    init_cfg = dict(type='Pretrained', checkpoint=str(out))
    cfg = dict(type='mmdet_attn.AttentionMobileNetV2')
    if config:
        cfg = target_cfg(str(more[1]), {})
        cfg['type'] = f'mmdet_attn.{cfg["type"].split(".")[-1]}'
    model = MODELS.build(dict(cfg, init_cfg=init_cfg))
    model.init_weights()
    state = model.state_dict()
    # With identity_init they are the paper's modules nevertheless.
    alphas = [state.pop(key) for key in list(state) if 'alpha' in key]
    assert alphas == ([1.0] * 17 if config else [])
    for key, value in state.items():
        assert torch.equal(value, content['state_dict'][key])


def test_tool_keeps_what_is_there(official, tmp_path):
    out = tmp_path / 'out.pth'
    out.write_text('mine')
    status, shown = tool('ecanet', official, out)
    assert (status, out.read_text()) == (2, 'mine')
    assert 'exists: --force overwrites it' in shown
    # What fails writes nothing, by force neither.
    status, shown = tool('cbam', official, out, '--force')
    assert (status, out.read_text()) == (2, 'mine')
    assert 'keys that its checkpoints do not have' in shown
    assert tool('ecanet', official, out, '--force')[0] == 0
    assert torch.load(out)['meta']['source'] == 'ecanet'
    assert list(tmp_path.iterdir()) == [out]


class Run:
    def __reduce__(self):
        return print, ('code of the file',)


def test_tool_refuses(official, tmp_path):
    out = tmp_path / 'out.pth'
    cut, evil, other = (tmp_path / n for n in ('cut', 'evil', 'other'))
    cut.write_bytes(official.read_bytes()[:-100])
    torch.save(dict(state_dict=fill(dict(a=(1,))), extra=Run()), evil)
    torch.save(dict(epoch=1), other)
    config = ROOT / 'configs/retinanet_mobilenetv2.py'
    for arguments, message in [
        ((cut, out), 'is not a checkpoint that torch can read'),
        ((evil, out), 'wants to import .*print.*--trust-checkpoint'),
        ((tmp_path / 'none', out), 'no such checkpoint'),
        ((other, out), 'holds no weights'),
        ((official, tmp_path / 'no' / 'x'), 'a folder that exists'),
        ((official, tmp_path), 'a folder that exists'),
        ((official, official, '--force'), 'is INPUT: give another name'),
        (('https://a/b.pth', out), 'download it first'),
        ((official, out, '--config', 'none.py'), 'none.py: no such config'),
        (
            (official, out, '--config', config),
            '(?s)does not fit.*the config l',
        ),
    ]:
        status, shown = tool('ecanet', *arguments)
        assert status == 2
        assert re.search(message, shown), shown
        assert 'code of the file' not in shown
        assert 'Traceback' not in shown
    assert not out.exists()


def test_tool_explains_itself():
    status, output = tool('--help')
    assert status == 0
    for name, source in SOURCES.items():
        assert f'{name:<13} {source.description}' in output
    for option in ('--config', '--force', '--trust-checkpoint'):
        assert option in output
