"""The audit: replaced factors, shares, verdicts and folded detectors."""

import contextlib
import json
import math
import shutil

import pytest
import torch
from conftest import (
    DEMO,
    QUICK,
    load_config,
    run_tool,
    user_error,
)
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from modules import GATES, build_identity, every_gate, randomise
from torch import nn

from mmdet_attn import CBAM, ECA, GC, SE, Gate, LSKUnit, PSAConv2d
from mmdet_attn.errors import InputError
from mmdet_attn.look.gauge import GRID, SHARES, Gauge, resize
from mmdet_attn.plugins.cbam import SpatialGate
from mmdet_attn.study.audit import Audit
from mmdet_attn.study.effects import GatePart, Part, parts_of, using
from mmdet_attn.study.matches import Difference
from mmdet_attn.study.verdict import verdict

TOOL = 'tools/analysis_tools/audit.py'


def ready(name, **kwargs):
    return randomise(build_identity(name, **kwargs)).eval()


def measure(part, *batches):
    """Let a part see batches of images, as trained."""
    with using([part], 'measured'), torch.no_grad():
        found = []
        for x in batches:
            part.next_batch()
            found.append(part.module(x))
        part.finish()
    return found


def replace(part, effect, *batches):
    with using([part], effect), torch.no_grad():
        found = []
        for x in batches:
            part.next_batch()
            found.append(part.module(x))
    return found


class Given(Gate):
    """A gate whose map is the input's first channels, of any shape."""

    def __init__(self, shape=(1, 1, 1)):
        super().__init__(1)
        self.shape = shape

    def gate(self, x):
        c, h, w = self.shape
        return x[:, :c, : h or None, : w or None]


def gauge_of(maps, *more):
    gauge = Gauge()
    for one in (maps, *more):
        gauge.add(one)
    return gauge


# -- sizes and shares


@pytest.mark.parametrize('size', [(5, 7), (3, 3), (64, 1), (12, 30)])
def test_resize_keeps_the_mean_of_each_map(size):
    maps = torch.rand(2, 3, 6, 10, dtype=torch.double)
    found = resize(maps, *size)
    assert found.shape == (2, 3, *size)
    torch.testing.assert_close(found.mean((2, 3)), maps.mean((2, 3)))
    assert resize(maps, 6, 10) is maps


def test_resize_takes_means_of_areas():
    maps = torch.tensor([[[0.0, 3.0, 6.0]]], dtype=torch.double)
    expected = torch.tensor([[[1.0, 5.0]]], dtype=torch.double)
    torch.testing.assert_close(resize(maps, 1, 2), expected)
    doubled = maps.repeat_interleave(2, 2)
    torch.testing.assert_close(resize(maps, 1, 6), doubled)


SHAPE = 4, 6, 5, 7  # images, channels, height, width


@pytest.mark.parametrize('share', SHARES)
def test_each_share_is_found_alone(share):
    n, c, _, w = SHAPE
    signs = {
        'gain': torch.ones(()),
        'channel': torch.tensor([1.0, -1] * 3).view(1, c, 1, 1),
        'position': torch.linspace(-1, 1, w).view(1, 1, 1, w),
        'image': torch.tensor([1.0, -1] * 2).view(n, 1, 1, 1),
    }
    signs['rest'] = signs['channel'] * signs['position']
    maps = (1 + 0.3 * signs[share]).expand(SHAPE)
    parts = gauge_of(maps).parts(alpha=-2.0)
    total = (4 * (maps - 1).square().mean()).item()
    for name, value in parts.items():
        assert value == pytest.approx(total * (name == share), abs=1e-6)


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (GRID + 3, 2 * GRID)])
def test_parts_are_the_variance_about_one(size):
    """Also of maps that are finer than the grid."""
    torch.manual_seed(0)
    maps = torch.rand(5, 3, *size) + torch.rand(3, *size)
    gauge = gauge_of(maps[:2], maps[2:])
    parts = gauge.parts(0.7)
    total = 0.49 * (maps.double() - 1).square().mean().item()
    assert math.isclose(sum(parts.values()), total, rel_tol=1e-9)
    assert min(parts.values()) >= 0
    if max(size) <= GRID:
        image = 0.49 * maps.double().var(0, correction=0).mean().item()
        assert parts['image'] == pytest.approx(image, rel=1e-9)
        torch.testing.assert_close(gauge.mean, maps.double().mean(0))


def test_sums_do_not_grow_with_the_images():
    gauge = gauge_of(torch.rand(2, 3, 200, 100))
    sizes = [gauge.sum.shape]
    for side in (90, 300):
        gauge.add(torch.rand(4, 3, side, side))
        sizes.append(gauge.sum.shape)
    assert sizes == [(3, GRID, GRID)] * 3
    assert gauge.count == 10


def test_saturation_is_the_share_of_values_near_the_ends():
    maps = torch.tensor([0.01, 0.5, 0.94, 0.96]).view(1, 4, 1, 1)
    assert gauge_of(maps).saturation == 0.5
    assert gauge_of(maps + 0.1).saturation is None
    twice = Gauge(scale=2.0)
    twice.add(2 * maps)
    assert twice.saturation == 0.5


# -- replacements


@every_gate
def test_images_that_are_alike_show_no_dependence(name):
    part = GatePart('gate', ready(name))
    x = torch.randn(1, 32, 8, 6).repeat(3, 1, 1, 1)
    (trained,) = measure(part, x)
    torch.testing.assert_close(part.module(x), trained)
    for effect in ('map', 'shuffled'):
        (found,) = replace(part, effect, x)
        torch.testing.assert_close(found, trained, rtol=1e-4, atol=1e-5)
    assert part.gauge.parts(1.0)['image'] == pytest.approx(0, abs=1e-6)
    (found,) = replace(part, 'removed', x)
    assert found is x


@pytest.mark.parametrize('name', [g for g in GATES if 'Shuffle' not in g])
def test_nothing_depends_on_the_image_but_the_input(name):
    part = GatePart('gate', ready(name))
    torch.manual_seed(1)
    x = torch.rand(4, 32, 8, 6) + 0.1
    measure(part, x)
    factors = 1 + part.alpha * (part.gauge.mean - 1)
    for effect, wanted in (('map', factors), ('scalar', factors.mean())):
        (found,) = replace(part, effect, x)
        expected = x * wanted
        if name == 'GSoP-position':  # a ReLU follows, and alpha blends
            g = part.gauge.mean
            g = g if effect == 'map' else g.mean()
            wide = x.double()
            expected = torch.lerp(wide, (wide * g).relu(), part.alpha)
        torch.testing.assert_close(
            found, expected.float(), rtol=1e-4, atol=1e-5
        )


def test_map_of_another_image():
    """Within a batch, from the batch before, and round from the last."""
    part = GatePart('gate', Given())
    x = torch.arange(1.0, 6).view(5, 1, 1, 1)
    batches = x[:2], x[2:4], x[4:]
    measure(part, *batches)
    for _ in range(2):
        found = torch.cat(replace(part, 'shuffled', *batches)).flatten()
        assert found.tolist() == [1 * 5, 2 * 1, 3 * 2, 4 * 3, 5 * 4]


def test_map_of_another_size():
    part = GatePart('gate', Given((1, 0, 0)))
    small, large = torch.rand(1, 1, 4, 6), torch.rand(1, 1, 8, 6)
    measure(part, small, large)
    first, second = replace(part, 'shuffled', small, large)
    torch.testing.assert_close(first, small * resize(large, 4, 6))
    torch.testing.assert_close(second, large * resize(small, 8, 6))
    (found,) = replace(part, 'map', large)
    mean = (resize(small, 4, 6) + resize(large, 4, 6)) / 2
    torch.testing.assert_close(found, large * resize(mean, 8, 6))


def test_runs_of_one_image_are_not_other_images():
    """A gate of a head that all levels share runs once for each level."""
    part = GatePart('gate', Given())
    one, two = torch.tensor([[[[2.0]]]]), torch.tensor([[[[3.0]]]])
    for effect in ('measured', 'shuffled'):
        with using([part], effect):
            found = []
            for image in (1, 10):
                part.next_batch()
                found += [part.module(x * image).item() for x in (one, two)]
            part.finish()
    # Each level gets the map of the same level.
    assert found == [2 * 20, 3 * 30, 20 * 2, 30 * 3]


def test_no_region_of_interest():
    part = GatePart('gate', Given())
    none = torch.zeros(0, 1, 1, 1)
    x = torch.tensor([2.0, 3.0]).view(2, 1, 1, 1)
    measure(part, x, none, x)
    assert part.gauge.count == 4
    found = replace(part, 'shuffled', none, x)
    assert len(found[0]) == 0
    assert found[1].flatten().tolist() == [2 * 3, 3 * 2]


def test_module_that_adds():
    part = Part('gc', ready('GC'))
    assert part.effects == ('removed', 'shuffled')
    x = torch.randn(3, 32, 4, 5)
    (trained,) = measure(part, x)
    added = trained - x
    (found,) = replace(part, 'shuffled', x)
    torch.testing.assert_close(found, x + added.roll(1, 0))
    (found,) = replace(part, 'removed', x)
    assert found is x


def test_a_module_is_as_before_afterwards():
    gate = ready('ECA')
    part = GatePart('gate', gate)
    x = torch.randn(2, 32, 4, 4)
    before = gate(x)
    with contextlib.suppress(RuntimeError), using([part], 'removed'):
        assert gate(x) is x
        raise RuntimeError
    assert torch.equal(gate(x), before)
    assert not {'gate', 'forward'} & vars(gate).keys()


def test_what_can_be_audited():
    network = nn.ModuleDict(
        dict(
            cbam=CBAM(16),
            se=SE(16),
            gc=GC(16),
            unit=LSKUnit(16),
            conv=PSAConv2d(64, 64, 3, padding=1),
        )
    )
    parts, others = parts_of(network)
    assert [(p.name, type(p)) for p in parts] == [
        ('cbam.channel', GatePart),
        ('cbam.spatial', GatePart),
        ('se', GatePart),
        ('gc', Part),
        ('unit.spatial_gating_unit', GatePart),
    ]
    assert others == {'conv': 'it replaces a convolution'}


# -- verdicts

EFFECTS = 'trained', 'map', 'scalar', 'removed', 'shuffled'
GATE = [GatePart('layer1.0.eca', ECA(8))]
SUM = [Part('layer1.0.gc', GC(16))]


@pytest.mark.parametrize(
    ('aps', 'parts', 'kind', 'words'),
    [
        ((40, 40.1, 40.0, 38, 39), GATE, 'constant', 'a constant gain'),
        ((40, 40.1, 39.0, 38, 39), GATE, 'fixed', 'a fixed map'),
        ((40, 38.7, 38.0, 30, 35), GATE, 'attends', 'AP falls by 1.3'),
        ((40, 41.3, 38.0, 30, 35), GATE, 'harms', 'AP rises by 1.3'),
        ((40, 40, 40, 40.1, 40), GATE, 'nothing', 'AP changes by +0.1'),
        ((0.9, 0.9, 0.9, 0.9, 0.9), GATE, 'unknown', 'is 0.9'),
        ((40, None, None, 38, 39.9), SUM, 'fixed', 'in all images'),
        ((40, None, None, 38, 38), SUM, 'attends', 'AP falls by 2.0'),
    ],
)
def test_verdict(aps, parts, kind, words):
    ap = {
        effect: {'bbox': value / 100}
        for effect, value in zip(EFFECTS, aps, strict=True)
        if value is not None
    }
    found, _, sentence = verdict(parts, ap, {})
    assert found == kind
    assert words in sentence
    # Masks alone can tell, too.
    if kind not in ('unknown', 'nothing'):
        both = {k: {'bbox': 0.3, 'segm': v['bbox']} for k, v in ap.items()}
        assert verdict(parts, both, {})[::2] == (found, sentence)


@pytest.mark.parametrize(
    ('low', 'high', 'kind', 'words'),
    [
        (-2.1, -0.3, 'attends', 'These 2 gates attend: without'),
        (-2.1, 0.3, 'unsure', 'These 2 gates may attend: without'),
    ],
)
def test_a_change_whose_interval_holds_zero_is_not_sure(
    low, high, kind, words
):
    aps = dict(zip(EFFECTS, (40, 38.7, 38.0, 30, 35), strict=True))
    ap = {effect: {'bbox': value / 100} for effect, value in aps.items()}
    change = Difference(-0.013, low / 100, high / 100)
    found = verdict([GATE[0]] * 2, ap, {'map': {'bbox': change}})
    assert found.kind == kind
    assert words in found.sentence


class Toy(nn.Module):
    """Two stages with a gate each."""

    def __init__(self, first, second):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Identity(), first)
        self.layer2 = nn.Sequential(nn.Identity(), second)

    def forward(self, x):
        return self.layer2(self.layer1(x))


class Answers:
    """Instead of AP, the share of images with the answers as trained."""

    def __init__(self, network, images):
        self.images, self.data = len(images), images.split(2)
        with torch.no_grad():
            self.answers = torch.cat([network(x) for x in self.data])

    def run(self, network, step, next_batch, keep):
        found = []
        for x in self.data:
            next_batch()
            found.append(network(x))
            step(len(x))
        right = torch.isclose(torch.cat(found), self.answers, rtol=0.05)
        ap = right.all((1, 2, 3)).double().mean().item()
        return {'bbox': ap}, {}


class Constant(Gate):
    def __init__(self):
        super().__init__(1)

    def gate(self, x):
        return x.new_full((len(x), 1, 1, 1), 0.5)


@pytest.mark.parametrize('stages', [True, False])
def test_audit_tells_a_gate_that_attends_from_a_constant(stages):
    network = Toy(Constant(), Given()).eval()
    torch.manual_seed(0)
    images = torch.rand(7, 1, 1, 1) + 0.5
    audit = Audit(network, Answers(network, images), stages)
    steps, shown = [], []
    found = audit.run(steps.append, shown.append)
    assert sum(steps) == audit.passes * len(images)
    assert len(shown) == audit.passes == (13 if stages else 5)
    kinds = {g['name']: g['verdict'] for g in found['groups']}
    assert kinds.pop('all') == 'attends'
    if stages:
        assert kinds == {'layer1': 'constant', 'layer2': 'attends'}
    constant, attends = found['parts']
    assert constant['mean'] == 0.5
    assert constant['shares']['gain'] == pytest.approx(1)
    g = 0.5 * images.double()
    image = g.var(correction=0) / (g - 1).square().mean()
    assert attends['shares']['image'] == pytest.approx(image.item())
    assert attends['image_std'] == pytest.approx(g.std(correction=0).item())
    json.dumps(found, allow_nan=False)


def test_part_that_does_not_run():
    network = Toy(Constant(), Constant()).eval()
    network.training_only = SE(16)
    audit = Audit(network, Answers(network, torch.rand(2, 1, 1, 1)))
    found = audit.run()
    assert [row['name'] for row in found['parts']] == ['layer1.1', 'layer2.1']
    assert 'does not run' in found['not_audited']['training_only']
    network.layer1, network.layer2 = nn.Identity(), nn.Identity()
    audit = Audit(network, Answers(network, torch.rand(2, 1, 1, 1)))
    with pytest.raises(InputError, match='runs in an evaluation'):
        audit.run()


def test_nothing_to_audit():
    conv = PSAConv2d(64, 64, 3, padding=1)
    for network in (nn.Identity(), nn.Sequential(conv)):
        with pytest.raises(InputError, match='no attention to audit'):
            Audit(network, None)


# -- folded detectors


@pytest.fixture
def batch():
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(2, [[3, 64, 64], [3, 64, 48]], use_box_type=True)


def detector_of(cfg):
    """A detector of random weights and statistics."""
    from mmdet_attn.study.evaluation import build_detector

    torch.manual_seed(0)
    detector = build_detector(cfg, 'cpu')
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, Gate) and module.alpha is not None:
            nn.init.uniform_(module.alpha, -0.5, 0.5)
    return detector


def config(attention=None, insertions=None):
    """The demo's config, with other plugins."""
    cfg = load_config('demo/faster_rcnn_r50_eca_shapes')
    if attention is not None or insertions is not None:
        cfg.model.backbone.plugins = attention
    if insertions is not None:
        host = cfg.model.backbone
        cfg.model.backbone = dict(
            type='mmdet_attn.insert', host=host, plugins=insertions
        )
    return Config(cfg.to_dict())


def plugin(kind, **more):
    cfg = dict(type=f'mmdet_attn.{kind}', identity_init=True)
    return dict(cfg=cfg, position='after_conv3') | more


class OneBatch:
    """An evaluation that measures nothing."""

    def run(self, detector, step):
        return {'bbox': 0.5}, {}


def fold_up(cfg, batch, tmp_path, effect, wanted=()):
    """Fold, and return what was folded and both detectors' maps."""
    from mmdet_attn.study import fold

    detector = detector_of(cfg)
    parts, _ = parts_of(detector)
    with using(parts, 'measured'), torch.no_grad():
        detector.test_step(batch)
    ready = fold.Fold(cfg, detector, parts, batch)
    kind = {'scalar': 'constant', 'map': 'fixed'}[effect]
    groups = [{'parts': [p.name for p in parts], 'verdict': kind}]
    factors = fold.constants(groups, parts, wanted)
    file = tmp_path / 'folded.pth'
    done = fold.write_folded(ready, factors, OneBatch(), file, {})
    plain = Config.fromfile(done['config'])
    folded = detector_of(plain)
    content = torch.load(file)
    folded.load_state_dict(content['state_dict'], strict=True)
    inputs = detector.data_preprocessor(batch)['inputs']
    chosen = [p for p in parts if p.name in factors]
    with torch.no_grad():
        with using([p for p in chosen if effect in p.effects], effect):
            expected = detector.extract_feat(inputs)
        with using(chosen, 'removed'):
            without = detector.extract_feat(inputs)
        found = folded.extract_feat(inputs)
    for one, two, other in zip(expected, found, without, strict=True):
        scale = one.abs().max()
        assert (one - two).abs().max() < 1e-5 * scale
        assert (one - other).abs().max() > 1e-3 * scale
    return done, plain


@pytest.mark.parametrize('effect', ['scalar', 'map'])
def test_folded_plain_detector_is_the_one_with_constants(
    effect, batch, tmp_path
):
    done, plain = fold_up(config(), batch, tmp_path, effect)
    assert len(done['plugins']) == 16
    assert done['left'] == {}
    assert plain.model.backbone.plugins is None
    state = torch.load(tmp_path / 'folded.pth')['state_dict']
    assert not [key for key in state if 'eca' in key]


def test_a_plugin_of_two_gates_becomes_one_factor(batch, tmp_path):
    done, _ = fold_up(config([plugin('CBAM')]), batch, tmp_path, 'scalar')
    assert len(done['plugins']) == 16


def test_some_stages(batch, tmp_path):
    done, plain = fold_up(
        config(), batch, tmp_path, 'map', ['*.layer[24].*', '*.layer3.0.*']
    )
    assert len(done['plugins']) == 4 + 3
    assert done['left']['backbone.layer3.0.eca'].startswith('other plugins')
    assert done['left']['backbone.layer1.0.eca'].startswith('its verdict')
    one, three = plain.model.backbone.plugins
    assert one.stages == (True, False, False, False)
    assert three.stages == (False, False, True, False)


def test_insertion_behind_a_norm(batch, tmp_path):
    inserted = dict(
        cfg=dict(type='mmdet_attn.SE', identity_init=True),
        at='layer[12].?.bn3',
    )
    whole = config([], [inserted])
    done, plain = fold_up(whole, batch, tmp_path, 'map')
    assert len(done['plugins']) == 7
    assert plain.model.backbone.type == whole.model.backbone.host.type
    done, plain = fold_up(
        whole, batch, tmp_path, 'map', ['backbone.layer1.?.se']
    )
    assert len(done['plugins']) == 3
    (spec,) = plain.model.backbone.plugins
    assert spec['at'] == [f'layer2.{i}.bn3' for i in range(4)]


def test_insertion_behind_a_convolution(batch, tmp_path):
    cfg = config([])
    cfg.model.neck = dict(
        type='mmdet_attn.insert',
        host=cfg.model.neck,
        plugins=[dict(cfg=dict(type='mmdet_attn.SE'), at='fpn_convs.*.conv')],
    )
    done, plain = fold_up(cfg, batch, tmp_path, 'map')
    assert len(done['plugins']) == 4
    assert plain.model.neck.type == 'FPN'


def refused(cfg, batch):
    from mmdet_attn.study.fold import Fold

    detector = detector_of(cfg)
    with pytest.raises(InputError) as info:
        Fold(cfg, detector, parts_of(detector)[0], batch)
    return str(info.value)


def test_gates_without_a_layer_in_front(batch):
    behind_relu = config([plugin('SE', position='after_conv2')])
    message = refused(behind_relu, batch)
    assert 'no norm and no convolution' in message
    assert 'backbone.layer4.2.se' in message


@pytest.mark.parametrize('kind', ['LSKUnit', 'GC', 'ShuffleAttention'])
def test_plugins_that_do_more_than_multiply(kind, batch):
    spec = plugin(kind, stages=(False, False, False, True))
    if kind == 'ShuffleAttention':
        spec['cfg']['groups'] = 8
    elif kind == 'GC':
        del spec['cfg']['identity_init']
    assert 'more than multiply' in refused(config([spec]), batch)


class UsesTheNormTwice(BaseModule):
    """A neck whose norm goes into a convolution and past it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(64)
        self.conv = nn.Conv2d(64, 64, 1)

    def forward(self, maps):
        y = self.norm(maps[0])
        return (self.conv(y) + y,)


def test_layer_that_others_use(batch, tmp_path):
    cfg = config([])
    cfg.model.backbone.out_indices = (0,)
    at = dict(cfg=dict(type='mmdet_attn.SE'), at='conv', place='before')
    cfg.model.neck = dict(
        type='mmdet_attn.insert', host=dict(type='Twice'), plugins=[at]
    )
    cfg.model.rpn_head.in_channels = 64
    cfg.model.rpn_head.anchor_generator.strides = [4]
    extractor = cfg.model.roi_head.bbox_roi_extractor
    extractor.update(out_channels=64, featmap_strides=[4])
    cfg.model.roi_head.bbox_head.in_channels = 64
    MODELS.register_module('Twice', module=UsesTheNormTwice)
    try:
        with pytest.raises(InputError, match='used elsewhere'):
            fold_up(cfg, batch, tmp_path, 'map')
    finally:
        del MODELS.module_dict['Twice']
    assert not [*tmp_path.iterdir()]


# -- the command


def audit(shapes, tmp_path, *options, config=DEMO, checkpoint=None):
    if checkpoint is None:
        checkpoint = tmp_path / 'weights.pth'
        detector = detector_of(load_config('demo/' + DEMO[13:-3]))
        torch.save(detector.state_dict(), checkpoint)
    return (
        TOOL, config, checkpoint, '--data-root', shapes,
        '--work-dir', tmp_path / 'work', *options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--images', '5'], '--images must be from 2 to the 4 images'),
        (['--images', '1'], 'got 1'),
        (['--launcher', 'pytorch'], 'runs in one process'),
        (['--fold-gates', '*'], '--fold-gates needs --fold'),
        (['--fold', 'model.pt'], '--fold must end in .pth'),
        (['--device', 'cuda:77'], '--device cuda:77 cannot be used'),
        (['--cfg-options', 'test_dataloader=None'], 'no test_dataloader'),
        (
            ['--cfg-options', 'model.backbone.plugins=None'],
            'does not fit the config',
        ),
        (
            ['--cfg-options', 'test_evaluator.metric=proposal_fast'],
            'AP of boxes or masks is needed',
        ),
    ],
)
def test_bad_input(options, message, shapes, tmp_path):
    assert message in user_error(*audit(shapes, tmp_path, *options))


def test_bad_patterns(shapes, tmp_path):
    options = ['--fold', tmp_path / 'x.pth', '--fold-gates', 'layer9.*']
    message = user_error(*audit(shapes, tmp_path, *options))
    assert "--fold-gates: 'layer9.*' matches no gate" in message
    assert 'The nearest names are backbone.layer' in message


def test_detector_without_attention(shapes, tmp_path):
    plain = ['--cfg-options', 'model.backbone.plugins=None']
    file = tmp_path / 'plain.pth'
    torch.save(detector_of(config([])).state_dict(), file)
    message = user_error(*audit(shapes, tmp_path, *plain, checkpoint=file))
    assert 'no attention to audit' in message
    assert 'Give a config with plugins' in message


@pytest.mark.slow
def test_audit_of_a_trained_detector(trained, tmp_path):
    """AP as trained is that of the test; what is folded is what was seen."""
    rest = [
        trained.checkpoint, '--data-root', trained.data,
    ]  # fmt: skip
    options = ['--cfg-options', *QUICK]
    folded = tmp_path / 'folded.pth'
    printed = run_tool(
        TOOL, trained.config, *rest, '--work-dir', tmp_path, '--time',
        '--fold', folded, '--fold-gates', '*', *options,
    )  # fmt: skip
    found = json.loads((tmp_path / 'audit/audit.json').read_text())
    every, *stages = found['groups']
    assert [g['name'][-6:] for g in stages] == [
        f'layer{i}' for i in range(1, 5)
    ]
    assert len(found['parts']) == 16
    for name in ('audit.md', 'audit.csv', 'gates.csv', 'factors.png'):
        assert (tmp_path / 'audit' / name).stat().st_size > 0
    assert every['sentence'] in printed
    assert 'times as long' in printed
    aps = every['ap']
    assert found['fold']['ap']['bbox'] == pytest.approx(aps['map']['bbox'])
    for config, file, ap in (
        (trained.config, trained.checkpoint, aps['trained']['bbox']),
        (tmp_path / 'folded.py', folded, aps['map']['bbox']),
    ):
        work = tmp_path / file.stem
        run_tool(
            'tools/test.py', config, file, '--data-root', trained.data,
            '--work-dir', work, *options,
        )  # fmt: skip
        (metrics,) = work.glob('*/*_metrics.json')
        report = json.loads(metrics.read_text())['coco']['bbox']
        assert report['all']['AP'] == pytest.approx(ap, abs=1e-6)


def set_gates(detector, weight):
    """Give the gates weights by which they are constant or far from it."""
    for module in detector.modules():
        if isinstance(module, Gate):
            nn.init.ones_(module.alpha)
        if isinstance(module, ECA):
            nn.init.constant_(module.conv.weight, weight)
        elif isinstance(module, SpatialGate):
            edges = nn.init.normal_(module.conv.weight, std=weight)
            with torch.no_grad():
                edges -= edges.mean((2, 3), True)
            nn.init.constant_(module.norm.weight, weight)


@pytest.mark.parametrize(
    ('kind', 'weight', 'expected'),
    [('ECA', 0.0, 'constant'), ('CBAM', 2.0, 'attends')],
)
def test_verdict_on_a_detector(kind, weight, expected, shapes, tmp_path):
    """The objects are its own detections, so AP as trained is high."""
    from mmdet_attn.datasets.coco_folder import use_data_root
    from mmdet_attn.study.evaluation import Evaluation

    data = tmp_path / 'data'
    shutil.copytree(shapes, data)
    cfg = config([plugin(kind)])
    use_data_root(cfg, str(data), ('val',))
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    detector = detector_of(cfg)
    set_gates(detector, weight)
    for norm in detector.modules():  # take the statistics of the images
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    (samples,) = Evaluation(cfg).loader
    inputs = detector.data_preprocessor(samples)['inputs']
    with torch.no_grad():
        detector.train().extract_feat(inputs)
    detector.eval()
    file = data / 'annotations/instances_val.json'
    content = json.loads(file.read_text())
    content['annotations'] = []
    for samples in Evaluation(cfg).loader:
        with torch.no_grad():
            found = detector.test_step(samples)
        for sample in found:
            best = sample.pred_instances[:5]
            for box, label in zip(best.bboxes, best.labels, strict=True):
                x1, y1, x2, y2 = (box * 1.0).tolist()
                content['annotations'].append(
                    {
                        'id': len(content['annotations']) + 1,
                        'image_id': sample.img_id,
                        'category_id': content['categories'][label]['id'],
                        'bbox': [x1, y1, x2 - x1, y2 - y1],
                        'area': (x2 - x1) * (y2 - y1),
                        'iscrowd': 0,
                    }
                )
    file.write_text(json.dumps(content))
    found = Audit(detector, Evaluation(cfg), stages=False).run()
    (every,) = found['groups']
    assert every['ap']['trained']['bbox'] > 0.5
    assert every['verdict'] == expected, every
