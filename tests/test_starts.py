"""The starts that a study compares: zeroed gates, and a driven alpha."""

import copy
import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import (
    DEMO,
    QUICK,
    ROOT,
    box_ap,
    last_checkpoint,
    load_config,
    run_tool,
)
from mmengine.registry import HOOKS, MODELS
from torch import nn
from torch.testing import assert_close

import mmdet_attn
from mmdet_attn.errors import InputError
from mmdet_attn.look.gates import record_gates
from mmdet_attn.weights.plugins import plugins_of, starts_as_identity

GATES = ('SE', 'ECA', 'CBAM')


def zero(name, channels=32, **arguments):
    plugin = dict(type=f'mmdet_attn.{name}', **arguments)
    cfg = dict(type='mmdet_attn.ZeroStart', plugin=plugin)
    torch.manual_seed(0)
    return MODELS.build(dict(cfg, in_channels=channels))


def paper(name, channels=32, **arguments):
    return vars(mmdet_attn)[name](channels, **arguments)


@pytest.mark.parametrize('mode', [True, False])
@pytest.mark.parametrize('name', [*GATES, 'ESE', 'ECANS', 'GAM'])
def test_zero_start_returns_its_input(name, mode):
    module = zero(name).train(mode)
    assert starts_as_identity(module)
    x = torch.randn(3, 32, 7, 5) * torch.logspace(-9, 9, 32).view(-1, 1, 1)
    assert torch.equal(module(x), x)
    half = x.clamp(-9, 9).bfloat16()
    assert torch.equal(copy.deepcopy(module).bfloat16()(half), half)


@pytest.mark.parametrize('name', GATES)
def test_zero_start_is_the_paper_times_a_constant(name):
    """With any weights: twice the gates, and no parameter more."""
    module, alone = zero(name), paper(name)
    parameters = [*module.parameters()]
    shapes = [p.shape for p in parameters]
    assert shapes == [p.shape for p in alone.parameters()]
    for one, two in zip(parameters, alone.parameters(), strict=True):
        nn.init.normal_(one, std=0.3)
        two.data.copy_(one)
    x = torch.randn(2, 32, 7, 5)
    gates = [m for m in module.modules() if type(m).__name__ == 'ScaledGate']
    if name == 'CBAM':
        module.eval(), alone.eval()
        first = 2 * alone.channel(x)
        assert_close(module(x), 2 * alone.spatial(first))
        assert len(gates) == 2
    else:
        assert_close(module(x), 2 * alone(x))
        assert len(gates) == 1


@pytest.mark.parametrize('name', GATES)
def test_what_looks_for_gates_finds_their_factor(name):
    """The constant is a part of the gate, so that its factor is 1."""
    host = nn.Sequential(nn.Conv2d(3, 32, 1), zero(name)).eval()
    with torch.no_grad(), record_gates(host) as found:
        host(torch.randn(1, 3, 8, 8))
    assert len(found) == (2 if name == 'CBAM' else 1)
    for (factor,) in found.values():
        assert (factor == 1).all()


@pytest.mark.parametrize('name', GATES)
def test_zero_start_learns(name):
    module = zero(name)
    x = torch.randn(4, 32, 7, 5)
    module(x).square().sum().backward()
    assert any(p.grad.abs().max() > 0 for p in module.parameters())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.01 * parameter.grad
    assert not torch.equal(module(x), x)
    # Its weights are kept and loaded like those of any module.
    other = zero(name)
    other.load_state_dict(pickle.loads(pickle.dumps(module.state_dict())))
    assert torch.equal(other.eval()(x), module.eval()(x))
    module.init_weights()
    assert torch.equal(module(x), x)


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('SE', dict(identity_init=True), 'identity_init=True'),
        ('GC', {}, 'GC has no gates'),
        ('GSoP', dict(mode='position'), 'more than gates'),
        ('CoordAtt', {}, 'CoordAtt with its last layer at zero'),
        ('BAM', {}, 'no constant power of two'),
        ('SimAM', {}, 'SimAM with its last layer at zero'),
    ],
)
def test_zero_start_refuses_what_does_not_start_as_identity(
    name, arguments, message
):
    with pytest.raises(InputError, match=f'ZeroStart: .*{message}'):
        zero(name, **arguments)


def demo(**plugin):
    model = load_config(DEMO.removeprefix('configs/').removesuffix('.py'))
    backbone = model.model.backbone
    backbone.type = 'mmdet_attn.AttentionResNet'
    backbone.plugins = [dict(cfg=plugin, position='after_conv3')]
    return MODELS.build(backbone)


@pytest.mark.parametrize('name', GATES)
def test_zero_start_in_a_host(name):
    pytest.importorskip('mmdet')
    cfg = dict(type=f'mmdet_attn.{name}')
    host = demo(type='mmdet_attn.ZeroStart', plugin=cfg)
    host.init_weights()
    plain = load_config(DEMO.removeprefix('configs/').removesuffix('.py'))
    plain.model.backbone.plugins = None
    plain = MODELS.build(plain.model.backbone)
    found = plain.load_state_dict(host.state_dict(), strict=False)
    assert not found.missing_keys
    assert all('.zerostart.plugin.' in key for key in found.unexpected_keys)
    assert len(plugins_of(host)) == 16
    x = torch.randn(1, 3, 64, 64)
    for one, two in zip(host.eval()(x), plain.eval()(x), strict=True):
        assert torch.equal(one, two)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.se = mmdet_attn.SE(8, identity_init=True)

    def forward(self, x):
        return self.se(self.conv(x))


def ramp(end):
    return HOOKS.build(dict(type='mmdet_attn.AlphaRampHook', end=end))


def drive(network, hook, first, last):
    """Iterations of a training, with all that could move alpha."""
    runner = SimpleNamespace(model=network, iter=first)
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, weight_decay=1)
    hook.before_train(runner)
    found = [network.se.alpha.item()]
    for runner.iter in range(first, last):
        optimizer.zero_grad()
        network(torch.randn(2, 3, 4, 4)).square().sum().backward()
        assert network.se.alpha.grad == 0
        optimizer.step()
        hook.after_train_iter(runner, 0)
        found.append(network.se.alpha.item())
    return found


def test_alpha_is_driven():
    torch.manual_seed(0)
    network = Network()
    before = copy.deepcopy(network.se.fc2.weight)
    found = drive(network, ramp(4), 0, 6)
    assert found == [0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert not torch.equal(network.se.fc2.weight, before)
    # A resume begins where it was, whatever the network was built with.
    assert drive(Network(), ramp(4), 2, 3) == [0.5, 0.75]
    # At the end it is the paper's module.
    x = torch.randn(1, 8, 5, 5)
    alone = mmdet_attn.SE(8)
    alone.load_state_dict(network.se.state_dict(), strict=False)
    assert torch.equal(network.se(x), alone(x))


@pytest.mark.parametrize('end', [0, -1, 2.5, True, '3'])
def test_a_bad_end_is_refused(end):
    with pytest.raises(InputError, match='AlphaRampHook: end must be'):
        ramp(end)


def test_without_alpha_there_is_nothing_to_drive():
    runner = SimpleNamespace(model=nn.Sequential(mmdet_attn.SE(8)), iter=0)
    with pytest.raises(InputError, match='no gate has an alpha'):
        ramp(3).before_train(runner)


CONFIG = """
_base_ = {base!r}
model = dict(backbone=dict(type='mmdet_attn.AttentionResNet'))
model['backbone']['plugins'] = [dict(cfg={plugin}, position='after_conv3')]
custom_hooks = [dict(type='mmdet_attn.EvaluateFirstHook'), *{hooks}]
load_from = {weights!r}
"""


@pytest.mark.slow
def test_trainings_of_all_starts(shapes, tmp_path):
    """From a plain detector, with AP before the first step."""

    def train(name, config, *options, resume=()):
        work = tmp_path / name
        command = ['tools/train.py', config, '--data-root', shapes]
        command += ['--work-dir', work, *resume, '--cfg-options', *QUICK]
        return work, run_tool(*command, *options)

    def write(name, plugin, *hooks):
        file = tmp_path / f'{name}.py'
        weights = str(last_checkpoint(plain))
        base = str(ROOT / DEMO)
        file.write_text(
            CONFIG.format(
                base=base, plugin=plugin, hooks=hooks, weights=weights
            )
        )
        return file

    def saved(work):
        return torch.load(last_checkpoint(work), weights_only=False)

    plain, log = train('plain', DEMO, 'model.backbone.plugins=None')
    before = box_ap(log)

    gate = dict(type='mmdet_attn.SE')
    zero = write('zero', dict(type='mmdet_attn.ZeroStart', plugin=gate))
    work, log = train('zero', zero)
    assert box_ap(log.partition('Epoch(train)')[0]) == before
    keys = saved(work)['state_dict']
    assert keys['backbone.layer4.0.zerostart.plugin.inner.fc2.bias'].any()
    assert not any(key.endswith('alpha') for key in keys)

    ramp = dict(type='mmdet_attn.AlphaRampHook', end=8)
    driven = write('ramp', dict(gate, identity_init=True), ramp)
    whole, log = train('whole', driven)
    assert box_ap(log.partition('Epoch(train)')[0]) == before
    found = saved(whole)
    alphas = {k: v for k, v in found['state_dict'].items() if 'alpha' in k}
    assert len(alphas) == 16
    assert {v.item() for v in alphas.values()} == {found['meta']['iter'] / 8}

    parts, _ = train('parts', driven, 'train_cfg.max_epochs=1')
    parts, log = train('parts', driven, resume=['--resume'])
    assert 'Epoch(val)   [0]' not in log
    assert 'coco/bbox_mAP' not in log.partition('Epoch(train)')[0]
    for key, value in saved(parts)['state_dict'].items():
        assert torch.equal(value, found['state_dict'][key]), key


STUDIES = ROOT / 'docs' / 'studies'


def decide(folders):
    done = subprocess.run(
        [sys.executable, STUDIES / 'starts.py', *folders],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def make_runs(folder, gains):
    """Facts of trainings: gains of the starts over alpha, with noise."""
    noise = [0.0, 0.001, -0.001, 0.002, -0.002]
    names = [
        'none',
        *(f'{m}_{s}' for m in ('se', 'eca', 'cbam') for s in gains),
    ]
    for name in names:
        for seed, more in enumerate(noise):
            gain = gains.get(name.rpartition('_')[2], 0)
            gain += more if 'zero' in name or 'ramp' in name else 0
            aps = [0.5, 0.6 + 0.01 * seed + gain]
            run = folder / 'runs' / f'faster_rcnn_{name}_seed{seed}'
            run.mkdir(parents=True)
            facts = {'finished': True, 'seed': seed}
            facts['evaluations'] = [
                {'epoch': epoch, 'bbox': {'all': {'AP': ap}}}
                for epoch, ap in enumerate(aps)
            ]
            (run / 'facts.json').write_text(json.dumps(facts))
    return folder


def test_the_studies_decide_as_written(tmp_path):
    starts = dict(paper=-0.05, alpha=0.0)
    one = make_runs(tmp_path / '1', starts | dict(zero=0.01, ramp=0.01))
    two = make_runs(tmp_path / '2', starts | dict(zero=0.0, ramp=-0.01))
    lines = decide([one, two])
    assert 'zero is better than alpha.' in lines
    assert 'ramp is not seen to beat alpha.' in lines
    paper = 'se_paper   inserted 50.0, at the end 57.0, -5.0 (-5.0 to -5.0)'
    assert any(line.startswith(paper) for line in lines)
    # t(4, 0.9875) = 3.4954; s = 0.15811 points.
    found = 'zero against alpha, mean of the modules: '
    assert found + '+1.00 (97.5 %: +0.75 to +1.25)' in lines
    assert 'zero is not seen to beat alpha.' in decide([two, two])


@pytest.mark.parametrize('name', ['start_shapes', 'start_bccd'])
def test_study_files_have_four_starts_of_three_modules(name):
    """They differ in the start alone."""
    study = yaml.safe_load((STUDIES / name / 'study.yaml').read_text())
    none, *entries = study['attention']
    assert none == 'none'
    for cls in ('SE', 'ECA', 'CBAM'):
        own = dict(type=f'mmdet_attn.{cls}')
        alpha = dict(own, identity_init=True)
        expected = dict(
            paper=own,
            alpha=alpha,
            zero=dict(type='mmdet_attn.ZeroStart', plugin=own),
            ramp=alpha,
        )
        for start, plugin in expected.items():
            (entry,) = (
                e for e in entries if e['name'] == f'{cls.lower()}_{start}'
            )
            MODELS.build(dict(plugin, in_channels=32))
            assert entry['plugin'] == plugin
            assert ('options' in entry) == (start == 'ramp')
            hooks = entry.get('options', study['options'])['custom_hooks']
            assert hooks[0] == {'type': 'mmdet_attn.EvaluateFirstHook'}
            for hook in hooks:
                HOOKS.build(hook)
    assert len(entries) == 12
    plain = yaml.safe_load((STUDIES / name / 'plain.yaml').read_text())
    assert plain['attention'] == ['none']
    epochs = plain.get('epochs', 8)  # those of the demo
    weights = f'{plain["name"]}/runs/faster_rcnn_none_seed0/epoch_'
    assert study['load_from'] == f'work_dirs/{weights}{epochs}.pth'
