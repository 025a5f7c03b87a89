"""Official checkpoints become ours, tensor by tensor."""

import re
from typing import NamedTuple

import layouts
import pytest
import torch
from conftest import ROOT, run_here
from layouts import fill, mobilenet, resnet
from mmengine.registry import MODELS

from mmdet_attn import __version__
from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters import SOURCES
from mmdet_attn.weights.converters.source import new_names
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


class Case(NamedTuple):
    """Official keys, and what becomes of them.

    `names` has a line for a layer: the old name and the new one, behind the
    place that both begin with, if they do. `backbone` is what no shape shows.
    """

    source: str
    keys: dict
    names: str = ''
    dropped: str = r'fc\.'
    backbone: dict = {}  # noqa: RUF012


PSA = dict(
    type='mmdet_attn.PSAConv2d',
    kernel_sizes=(3, 5, 7, 9),
    groups=(1, 4, 8, 16),
    reduction=16,
)
CASES = {
    'ecanet 18': Case('ecanet', resnet(18, layouts.eca((3, 5, 7, 7)))),
    'ecanet 50': Case('ecanet', resnet(50, layouts.eca((3, 5, 5, 7)))),
    'ecanet mobilenet': Case(
        'ecanet',
        mobilenet(*ECA_MOBILENET),
        """
        features.0.1 conv1.bn
        features.1.conv.0.1 layer1.0.depthwise_conv.bn
        features.1.conv.1 layer1.0.linear_conv.conv
        features.1.conv.3.conv layer1.0.eca.conv
        features.3.conv.0.1 layer2.1.expand_conv.bn
        features.4.conv.1.1 layer3.0.depthwise_conv.bn
        features.14.conv.3 layer6.0.linear_conv.bn
        features.17.conv.4.conv layer7.0.eca.conv
        features.18.0 conv2.conv
        """,
        dropped=r'classifier\.',
    ),
    'cbam': Case(
        'cbam',
        resnet(18, layouts.cbam),
        """
        layer1.0.cbam ChannelGate.mlp.1 channel.fc1
        layer1.0.cbam ChannelGate.mlp.3 channel.fc2
        layer4.1.cbam SpatialGate.spatial.bn spatial.norm
        """,
    ),
    'bam': Case(
        'bam',
        layouts.bam(50),
        """
        bam1.channel_att.gate_c.gate_c_fc_0 layer1.2.bam.channel.0
        bam2.channel_att.gate_c.gate_c_fc_final layer2.3.bam.channel.3
        bam3.spatial_att.gate_s.gate_s_bn_di_1 layer3.5.bam.spatial.7
        bam3.spatial_att.gate_s.gate_s_conv_di_0 layer3.5.bam.spatial.3
        """,
    ),
    'fcanet': Case(
        'fcanet',
        resnet(50, layouts.fca),
        """
        layer1.0 att.fc.0 fca.fc1
        layer1.0 att.fc.2 fca.fc2
        """,
        dropped=r'fc\.|.*dct_layer',
    ),
    'triplet': Case(
        'triplet',
        resnet(18, layouts.triplet(GATES, 'spatial')),
        '\n'.join(
            f'layer1.0 triplet_attention.{gate}.spatial.bn '
            f'tripletattention.{branch}.norm'
            for gate, branch in zip(GATES, ('cw', 'hc', 'hw'), strict=True)
        ),
    ),
    'triplet, newer': Case(
        'triplet',
        resnet(50, layouts.triplet(('cw', 'hc', 'hw'), 'conv')),
        """
        layer1.0 triplet_attention.hc.conv.bn tripletattention.hc.norm
        """,
    ),
    'simam': Case(
        'simam',
        resnet(50, conv2=lambda name, c: layouts.plain3x3(f'{name}.0', c)),
        'layer2.3 conv2.0 conv2',
        backbone=dict(dcn=dict(type='mmdet_attn.SimAMConv2d', lambda_=0.1)),
    ),
    'gcnet': Case(
        'gcnet',
        layouts.gc_detector(),
        'backbone.layer2.0.context_block.channel_add_conv.3 '
        'layer2.0.gc.channel_add_conv.3',
        dropped=r'neck|bbox_head',
    ),
    'gsop': Case(
        'gsop',
        resnet(50, layouts.gsop),
        """
        layer1.2 conv_for_DR gsop.reduce
        layer1.2 bn_for_DR gsop.norm
        layer2.3 row_bn gsop.row_norm
        layer3.5 row_conv_group gsop.row_conv
        layer4.2 fc_adapt_channels gsop.expand
        """,
        backbone=dict(strides=(1, 2, 2, 1)),
    ),
    'epsanet': Case(
        'epsanet',
        resnet(50, conv2=layouts.psa),
        """
        layer1.0.conv2 conv_1 convs.0
        layer1.0.conv2 conv_4 convs.3
        """,
        backbone=dict(dcn=PSA),
    ),
    'coordatt': Case(
        'coordatt',
        mobilenet(*CA_MOBILENET),
        """
        features.1.conv.3 layer1.0.linear_conv.conv
        features.2.conv.6.bn1 layer2.0.coordatt.norm
        features.2.conv.6.conv2 layer2.0.coordatt.conv_h
        features.2.conv.6.conv3 layer2.0.coordatt.conv_w
        features.2.conv.7 layer2.0.linear_conv.conv
        conv.1 conv2.bn
        """,
        dropped=r'classifier\.',
        backbone=dict(host=dict(type='mmdet.MobileNetV2')),
    ),
    'timm seresnet 18': Case('timm', resnet(18, SE)),
    'timm ecaresnet d': Case(
        'timm',
        resnet(50, layouts.eca((5, 5, 5, 7), 'se'), deep=True),
        """
        conv1.4 stem.4
        conv1.6 stem.6
        bn1 stem.7
        layer1.0 se.conv eca.conv
        """,
    ),
    'timm legacy_seresnet': Case(
        'timm',
        resnet(50, MODULE_SE, stem='layer0.', classifier='last_linear'),
        """
        layer0.conv1 conv1
        layer0.bn1 bn1
        layer1.0 se_module.fc2 se.fc2
        """,
        dropped='last_linear',
        backbone=dict(style='caffe'),
    ),
    'mmpretrain': Case(
        'mmpretrain',
        layouts.mmpretrain(resnet(50, MMPRETRAIN_SE)),
        """
        backbone.layer1.0.se_layer.conv1.conv layer1.0.se.fc1
        backbone.layer1.0.se_layer.conv2.conv layer1.0.se.fc2
        """,
        dropped=r'head\.',
    ),
    'torchvision': Case('torchvision', resnet(101)),
}


def official(case):
    """The converter of a case, and a checkpoint for it."""
    return SOURCES[CASES[case].source], fill(CASES[case].keys)


def convert(source, state):
    """Weights as the tool converts them: tried on the network they tell."""
    converted = source.convert(state)
    check_fit(source.backbone_cfg(state), converted)
    return converted


def without(state, pattern):
    return {k: v for k, v in state.items() if not re.match(pattern, k)}


def test_exactly_one_rule_fits_a_key():
    keys = ['conv1.weight']
    assert new_names(keys, {'conv1': 'stem'}) == {keys[0]: 'stem.weight'}
    both = {'conv1': 'stem', r'conv\d': None}
    for rules in (both, {'conv': 'stem'}, {}):
        with pytest.raises(InputError, match=r'conv\*\.weight'):
            new_names(keys, rules)
    with pytest.raises(InputError, match='a_conv'):  # a dot is a dot
        new_names(['a_conv1.weight'], {'a.conv1': 'stem'})


def test_every_source_has_a_case():
    # The detectors have a file of their own: test_legacy_weights.py.
    assert {c.source for c in CASES.values()} == SOURCES.keys() - {
        'ecanet-coco'
    }


@pytest.mark.parametrize('case', CASES)
def test_round_trip(case):
    """All tensors arrive, under the right names, and no others."""
    source, state = official(case)
    converted = source.convert(state)

    def content(tensors):
        return sorted((float(v.max()), v.numel()) for v in tensors.values())

    kept = without(state, CASES[case].dropped)
    assert content(converted) == content(kept)
    for value in converted.values():
        assert value.min() == value.max()
    for line in CASES[case].names.strip().splitlines():
        *place, old, new = line.split()
        old, new = ('.'.join([*place, name, '']) for name in (old, new))
        fields = [k.removeprefix(old) for k in state if k.startswith(old)]
        assert fields, old
        for field in fields:
            value = state[old + field].max()
            assert converted[new + field].max() == value, old

    cfg = source.backbone_cfg(state)
    assert cfg | CASES[case].backbone == cfg
    with torch.device('meta'):
        model = MODELS.build(cfg)
    model.load_state_dict(converted, strict=True, assign=True)
    if case == 'coordatt':
        count = sum(p.numel() for p in model.parameters())
        assert count + 1280 * 1000 + 1000 == 3_950_648


def test_kernel_sizes_as_config():
    source, state = official('ecanet 50')
    plugins = source.backbone_cfg(state)['plugins']
    assert [p['cfg']['kernel_size'] for p in plugins] == [3, 5, 7]
    assert plugins[1]['stages'] == (False, True, True, False)
    assert {p['position'] for p in plugins} == {'after_conv3'}
    mobile = source.backbone_cfg(official('ecanet mobilenet')[1])
    assert mobile['host'] == dict(type='mmdet.MobileNetV2')
    assert [(p['at'], p['cfg']['kernel_size']) for p in mobile['plugins']] == [
        ('layer[1-4].*.linear_conv', 1),
        ('layer[5-7].*.linear_conv', 3),
    ]


@pytest.mark.parametrize('case', CASES)
def test_broken_checkpoints_are_refused(case):
    source, state = official(case)
    strange = state | {'layer1.0.attn.weight': torch.zeros(1)}
    match = rf'(?s){source.name}: 1 keys .*layer\*\.\*\.attn\.weight'
    with pytest.raises(InputError, match=match):
        source.convert(strange)
    with pytest.raises(InputError, match=f'{source.name}: no weights'):
        source.convert({})
    block = r'(backbone\.)?layer2\.1\.|features\.5\.'
    with pytest.raises(
        InputError, match=r'3, 3, 6, 3|2, 1, 2|3, 3, 23|not in the check'
    ):
        convert(source, without(state, block))


@pytest.mark.parametrize(
    ('case', 'lost', 'message'),
    [
        ('ecanet 18', r'.*eca', r'no eca\.conv'),
        ('ecanet 18', r'layer2.*eca', r'2 in the config, not in the check'),
        ('ecanet 18', r'layer2\.1.*eca', r'1 in the config, not in the'),
        ('ecanet mobilenet', r'.*conv\.4\.conv', 'without the plugin eca'),
        ('ecanet mobilenet', r'.*5\.conv\.4\.conv', '2 in the config, not'),
        (
            'bam',
            'bam2',
            r'(?s)28 in the config, not in .*without the plugin ba',
        ),
        ('gcnet', '.*context_block', 'no context_block'),
        ('gcnet', '.*2.1.context_block', '8 in the config, not in the'),
        ('epsanet', '.*conv_3', 'no layer1.0.conv2.conv_3'),
        ('coordatt', r'.*conv\.6\.', 'no features.17.conv.6.conv1.weight'),
        ('timm seresnet 18', r'.*\.se\.', r'no se.*fc1\.weight'),
    ],
)
def test_missing_modules_are_refused(case, lost, message):
    source, state = official(case)
    with pytest.raises(InputError, match=message):
        convert(source, without(state, lost))


@pytest.mark.parametrize(
    ('case', 'key', 'shape', 'message'),
    [
        ('ecanet 18', 'layer2.1.eca.conv.weight', (1, 1, 9), 'says 5, 9 in s'),
        (
            'ecanet mobilenet',
            'features.12.conv.4.conv.weight',
            (1, 1, 1),
            'another ECA kernel_size: stage 5',
        ),
        (
            'timm ecaresnet d',
            'conv1.0.weight',
            (24, 3, 3, 3),
            'its stem has another width',
        ),
    ],
)
def test_what_no_host_takes_is_refused(case, key, shape, message):
    source, state = official(case)
    with pytest.raises(InputError, match=message):
        convert(source, state | {key: torch.zeros(shape)})


def test_other_frequencies_depths_and_names_are_refused():
    source, state = official('fcanet')
    key = 'layer2.0.att.dct_layer.weight'
    state[key] = state[key].transpose(1, 2)
    with pytest.raises(InputError, match=f'{key} is not the DCT'):
        source.convert(state)
    timm, legacy = SOURCES['timm'], resnet(18, MODULE_SE, stem='layer0.')
    with pytest.raises(InputError, match='legacy_seresnet18, which has one'):
        timm.backbone_cfg(fill(legacy))
    for source in ('simam', 'epsanet', 'gcnet'):
        with pytest.raises(InputError, match=f'{source}: a ResNet-18'):
            SOURCES[source].backbone_cfg(fill(resnet(18)))
    both = {name: torch.zeros(1) for name in ('layer0.conv1', 'conv1')}
    with pytest.raises(InputError, match='both become conv1'):
        timm.convert({f'{key}.weight': value for key, value in both.items()})


def test_config_decides_what_fits():
    """Kernel sizes, depth, and modules that plain weights leave out."""
    source, state = official('ecanet 18')
    state = source.convert(state)
    cfg = target_cfg(str(ROOT / 'configs/mask_rcnn_r18_eca.py'), state)
    other = source.convert(fill(resnet(18, layouts.eca((3, 3, 7, 7)))))
    plain = SOURCES['torchvision'].convert(fill(resnet(18)))

    def with_plugin(name, **options):
        module = dict(type=f'mmdet_attn.{name}', **options)
        return dict(cfg, plugins=[dict(cfg=module, position='after_conv2')])

    simam = with_plugin('SimAM', identity_init=True)
    check_fit(cfg, state)
    for target in (cfg, with_plugin('GC'), simam):
        check_fit(target, plain, plain=True)
    lost = without(state, r'layer3\.0\.bn1\.weight')
    for target, weights, options, message in (
        (cfg, other, {}, 'stage 2 has 3, the config 5'),
        (dict(cfg, depth=34), state, {}, 'a ResNet-18 in .* a ResNet-34 in'),
        (cfg, lost, {}, '1 in the config, not in the check'),
        (cfg, plain, {}, 'trained without the plugin eca'),
        (with_plugin('SE'), plain, dict(plain=True), 'the plugin se'),
        (simam, plain, dict(source='simam'), 'set identity_init=False'),
        (simam, plain, {}, 'trained without the plugin simam'),
    ):
        with pytest.raises(InputError, match=message) as error:
            check_fit(target, weights, **options)
        assert '--non-strict' not in str(error.value)


def test_differences_that_no_shape_shows():
    caffe, simam, gsop = (
        source.backbone_cfg(state)
        for source, state in map(
            official, ('timm legacy_seresnet', 'simam', 'gsop')
        )
    )
    plain = dict(type='ResNet', depth=50)
    for trained, config, differences in (
        (plain, plain, []),
        (simam, simam, []),
        (caffe, plain, ['style=caffe, the config has pytorch']),
        (simam, plain, ['dcn.lambda_=0.1, the config has None']),
        (
            gsop,
            dict(plain, strides=[1, 2, 2, 2]),
            ['strides=(1, 2, 2, 1), the config has (1, 2, 2, 2)'],
        ),
    ):
        found = untested_differences(trained, config)
        assert found == [f'trained with {text}' for text in differences]
    files = ('simam', 'gsop')
    configs = [target_cfg(f'{CONFIG}_{name}.py', {}) for name in files]
    assert untested_differences(simam, configs[0]) == []
    assert len(untested_differences(gsop, configs[1])) == 1


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """The file of a MobileNetV2, as its authors' script saves it."""
    keys = mobilenet(*ECA_MOBILENET)
    state = {f'module.{key}': value for key, value in fill(keys).items()}
    target = tmp_path_factory.mktemp('official') / 'eca.pth.tar'
    torch.save(dict(epoch=3, arch='eca', state_dict=state), target)
    return target


def tool(*arguments):
    """Exit status and output of the tool."""
    return run_here(TOOL, *arguments)


@pytest.mark.parametrize('config', [False, True])
def test_tool_converts(file, tmp_path, config):
    out = tmp_path / 'out.pth'
    more = ()
    if config:
        more = '--config', ROOT / 'configs/retinanet_mobilenetv2_eca.py'
    status, shown = tool('ecanet', file, out, *more)
    assert status == 0, shown
    flat = re.sub(r'[ │]+', ' ', shown)
    assert 'features.*.conv.4.conv.weight layer*.*.eca.conv.weight 16' in flat
    assert 'classifier.1.weight dropped 1' in flat
    assert "'kernel_size': 1}, 'at': 'layer[1-4]" in flat
    content = torch.load(out, weights_only=True)
    assert content['meta']['source'] == 'ecanet'
    assert content['meta']['input'] == 'eca.pth.tar'
    assert re.fullmatch('[0-9a-f]{64}', content['meta']['sha256'])
    assert content['meta']['mmdet_attn'] == __version__
    assert list(tmp_path.iterdir()) == [out]
    assert len(content['state_dict']) == len(mobilenet(*ECA_MOBILENET)) - 2

    # A backbone takes it as its pretrained weights.
    init_cfg = dict(type='Pretrained', checkpoint=str(out))
    if config:
        cfg = target_cfg(str(more[1]), {})
    else:
        source, state = official('ecanet mobilenet')
        cfg = source.backbone_cfg(state)
    cfg['host'].update(type='mmdet.MobileNetV2', init_cfg=init_cfg)
    model = MODELS.build(cfg)
    model.init_weights()
    state = model.state_dict()
    # With identity_init they are the paper's modules nevertheless.
    alphas = [state.pop(key) for key in list(state) if 'alpha' in key]
    assert alphas == ([1.0] * 17 if config else [])
    for key, value in state.items():
        assert torch.equal(value, content['state_dict'][key])


def test_tool_keeps_what_is_there(file, tmp_path):
    out = tmp_path / 'out.pth'
    out.write_text('mine')
    status, shown = tool('ecanet', file, out)
    assert (status, out.read_text()) == (2, 'mine')
    assert 'exists: --force overwrites it' in shown
    # What fails writes nothing, by force neither.
    status, shown = tool('cbam', file, out, '--force')
    assert (status, out.read_text()) == (2, 'mine')
    assert 'keys that its checkpoints do not have' in shown
    assert tool('ecanet', file, out, '--force')[0] == 0
    assert torch.load(out)['meta']['source'] == 'ecanet'
    assert list(tmp_path.iterdir()) == [out]


class Run:
    def __reduce__(self):
        return print, ('code of the file',)


def test_tool_refuses(file, tmp_path):
    out = tmp_path / 'out.pth'
    cut, evil, other = (tmp_path / n for n in ('cut', 'evil', 'other'))
    cut.write_bytes(file.read_bytes()[:-100])
    torch.save(dict(state_dict=fill(dict(a=(1,))), extra=Run()), evil)
    torch.save(dict(epoch=1), other)
    config = ROOT / 'configs/retinanet_mobilenetv2.py'
    for arguments, message in [
        ((cut, out), 'is not a checkpoint that torch can read'),
        ((evil, out), 'wants to import .*print.*--trust-checkpoint'),
        ((tmp_path / 'none', out), 'no such checkpoint'),
        ((other, out), 'holds no weights'),
        ((file, tmp_path / 'no' / 'x'), 'a folder that exists'),
        ((file, tmp_path), 'a folder that exists'),
        ((file, file, '--force'), 'is INPUT: give another name'),
        (('https://a/b.pth', out), 'download it first'),
        ((file, out, '--config', 'none.py'), 'none.py: no such config'),
        ((file, out, '--config', config), '(?s)does not fit.*the config l'),
    ]:
        status, shown = tool('ecanet', *arguments)
        assert status == 2
        assert re.search(message, shown), shown
        assert 'code of the file' not in shown
        assert 'Traceback' not in shown
    assert not out.exists()
