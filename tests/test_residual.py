"""The end of our residual blocks: one pass, and the memory of a plain block.

The plain form of it, identity + plugin(norm(x)), is what each test holds it
against. A hook on a plugin makes a block take the plain form.
"""

import copy
from functools import partial

import pytest
import torch
from modules import FORMS, build, build_identity, randomise
from torch import nn

from mmdet_attn import CBAM, ECA, SE, SEVar1
from mmdet_attn.backbones import AttentionResNet
from mmdet_attn.backbones.blocks import (
    AttentionBasicBlock,
    AttentionBottleneck,
)
from mmdet_attn.cost.counts import count
from mmdet_attn.insertion import insert
from mmdet_attn.plugins import Gate
from mmdet_attn.plugins.residual import add_scaled, splits

DOUBLE = dict(dtype=torch.double)


def block(plugin=None, kind=AttentionBottleneck, **kwargs):
    """A block for 32 channels, with statistics away from the defaults."""
    planes = 8 if kind is AttentionBottleneck else 32
    torch.manual_seed(0)
    made = randomise(kind(32, planes, **kwargs))
    if plugin is not None:
        position = [*made.widths()][-2]
        made.add_module('gate', plugin)
        made.inserted[position] = ['gate']
    return made.eval()


def plain(made):
    """The same block, whose plugin is called as any module."""
    made = copy.deepcopy(made)
    made.gate.register_forward_hook(lambda *_: None)
    return made


def fuses(made):
    return splits(made.gate)


def run(made, x, train=False):
    """The output, and the gradients of the input and the parameters."""
    x = x.clone().requires_grad_(train)
    with torch.set_grad_enabled(train):
        y = made(x)
    if not train:
        return [y]
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    used = [x, *(p for p in made.parameters() if p.requires_grad)]
    return [y, *torch.autograd.grad((y * weight).sum(), used)]


def assert_same(first, second, atol):
    """Equal up to rounding, by the largest value of each."""
    for one, other in zip(first, second, strict=True):
        scale = max(1, other.abs().max().item())
        torch.testing.assert_close(one, other, rtol=0, atol=atol * scale)


# At 800 x 1344, in the first and the last stage.
SHAPES = ((256, 200, 336), (2048, 25, 42))
# Reads and writes of the map, kernels, and what a training keeps, over those
# of the plain block. The kernels are those of the formula, with alpha.
LIMITS = {
    'ECA': (1.05, 4, 1.02),
    'SEVar1': (1.05, 3, 1.02),
    'SEVar2': (1.05, 4, 1.02),
    'SEVar3': (1.05, 4, 1.02),
    'SEGC1': (1.05, 4, 1.02),
    'SEGC2': (1.05, 4, 1.02),
    'SEGC3': (1.05, 4, 1.02),
    'ESE': (1.05, 4, 1.02),
    'SE': (1.05, 6, 1.02),
    # It multiplies along the width first, and writes one column of the map.
    'FCA': (1.09, 15, 1.02),
    # Its convolution reads the rectified map, which is written and kept.
    'GSoP': (5.8, 13, 1.5),
    # Two statistics of positions, two of channels, and the product.
    'CBAM': (6.1, 17, 1.02),
}


def wide(name, channels):
    """A block of ResNet-50, as `norm_eval` leaves it."""
    made = AttentionBottleneck(channels, channels // 4)
    if name is not None:
        cfg = dict(type=f'mmdet_attn.{name}', identity_init=True)
        made.insert('after_conv3', channels, cfg)
    for norm in (made.norm1, made.norm2, made.norm3):
        norm.eval()
    return made


@pytest.mark.parametrize('name', LIMITS)
def test_counts_of_a_block(name):
    maps, kernels, kept = LIMITS[name]
    for channels, height, width in SHAPES:
        x = torch.zeros(2, channels, height, width)
        ours, plain = wide(name, channels), wide(None, channels)
        got, base = (
            count(each, x, backward=True).kept for each in (ours, plain)
        )
        assert got <= kept * base, (channels, got / base)
        got, base = count(ours.eval(), x), count(plain.eval(), x)
        weights = sum(p.numel() for p in ours.parameters())
        weights -= sum(p.numel() for p in plain.parameters())
        more = (got.moved - base.moved) / 4 - weights
        assert more <= maps * x.numel(), (channels, more / x.numel())
        assert got.kernels - base.kernels <= kernels, channels


def test_limits_notice_one_map():
    """The plain form is over each of them."""
    made, x = wide('ECA', 256), torch.zeros(2, 256, 200, 336)
    fused = count(made, x, backward=True), count(made, x)
    made.eca.register_forward_hook(lambda *_: None)
    unfused = count(made, x, backward=True), count(made, x)
    assert unfused[0].kept - fused[0].kept >= 4 * x.numel()
    assert unfused[1].moved - fused[1].moved >= 2 * 4 * x.numel()
    assert unfused[1].kernels == fused[1].kernels + 1


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ECA', 'CBAM'])
def test_memory_of_a_network(name):
    """As trained: stage 1 frozen, batch norm in eval mode."""
    cfg = dict(type=f'mmdet_attn.{name}', identity_init=True)
    kept, base = (
        count(
            AttentionResNet(
                50, frozen_stages=1, norm_eval=True, plugins=plugins
            ).train(),
            torch.zeros(1, 3, 400, 672),
            backward=True,
        ).kept
        for plugins in ([dict(cfg=cfg, position='after_conv3')], None)
    )
    assert base / 2**20 == pytest.approx(243.8, abs=0.1)
    assert kept <= 1.02 * base


@pytest.mark.parametrize('name', FORMS)
def test_equals_the_plain_form(name):
    """All modules; which of them are fused is tested by what they are."""
    made = block(randomise(build_identity(name))).double()
    gate = made.gate
    assert fuses(made) == (
        (isinstance(gate, Gate) and type(gate).__name__ not in UNFUSED)
        or isinstance(gate, CBAM)
    )
    x = torch.randn(2, 32, 9, 8, **DOUBLE)
    assert_same(run(made, x), run(plain(made), x), 1e-13)
    made.gate.train()  # as fresh norms under norm_eval
    assert_same(run(made, x, True), run(plain(made), x, True), 1e-11)
    single, x = made.eval().float(), x.float()
    assert_same(run(single, x), run(plain(single), x), 1e-6)


# A shuffle of channels follows the product.
UNFUSED = ('ShuffleAttention',)
SOME = ('ECA', 'SE', 'FCA', 'CBAM', 'GSoP', 'SimAM')


@pytest.mark.parametrize('name', SOME)
@pytest.mark.parametrize(
    'case',
    ['basic', 'channels_last', 'train', 'frozen', 'gate', 'with_cp', 'half'],
)
def test_cases_equal_the_plain_form(name, case):
    kind = AttentionBasicBlock if case == 'basic' else AttentionBottleneck
    made = block(build(name), kind, with_cp=case == 'with_cp')
    made.double()
    x = torch.randn(2, 32, 9, 8, **DOUBLE)
    atol = 1e-12
    if case == 'channels_last':
        x = x.contiguous(memory_format=torch.channels_last)
    elif case == 'train':
        made.train()
    elif case == 'frozen':
        made.gate.requires_grad_(False)
    elif case == 'gate':
        made.requires_grad_(False).gate.requires_grad_(True)
    elif case == 'half':
        made, x, atol = made.float(), x.float(), 0.05
    other = plain(made)
    with torch.autocast('cpu', torch.bfloat16, enabled=case == 'half'):
        assert fuses(made)
        ours, theirs = run(made, x, True), run(other, x, True)
        assert_same(ours, theirs, atol)
        assert ours[0].is_contiguous(
            memory_format=torch.channels_last
            if case == 'channels_last'
            else torch.contiguous_format
        )
        assert_same(run(made, x), run(other, x), atol)
    for one, two in zip(made.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize('name', ['ECA', 'CBAM', 'SimAM'])
def test_first_and_second_derivatives(name):
    made = block(build(name)).double()
    x = torch.randn(1, 32, 3, 2, **DOUBLE, requires_grad=True)
    weights = [made.bn3.weight, *made.gate.parameters()]

    def function(x, *weights):
        return made.residual(x)

    assert torch.autograd.gradcheck(function, (x, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(
        function, (x, *weights), fast_mode=True
    )


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('name', SOME)
def test_identity_start_is_exact(name, train):
    """Bit for bit the block without a plugin."""
    made, x = block(build_identity(name)), torch.randn(2, 32, 9, 8)
    ours, theirs = run(made, x, train), run(block(), x, train)
    assert fuses(made)
    assert torch.equal(ours[0], theirs[0])


class Doubled(SE):
    """A subclass as a user writes it, which knows nothing of `split`."""

    def forward(self, x):
        return 2 * super().forward(x)


class Cut(SEVar1):
    """Its gate is a part of its map."""

    def gate(self, x):
        return x[:, :1]


class InPlace(SEVar1):
    """It changes its input."""

    def gate(self, x):
        return super().gate(x.mul_(2))


@pytest.mark.parametrize(
    ('plugin', 'fused'),
    [(Doubled(32), False), (Cut(32), True), (InPlace(32), True)],
)
def test_plugins_of_users(plugin, fused):
    made, x = block(plugin).double(), torch.randn(2, 32, 9, 8, **DOUBLE)
    assert fuses(made) == fused
    for train in (False, True):
        assert_same(run(made, x, train), run(plain(made), x, train), 1e-12)


def note(seen, *run):
    seen.append(run)


def test_hooks_and_replaced_methods_work():
    made, x = block(CBAM(32)), torch.randn(2, 32, 9, 8)
    before = made(x)
    for gate in (made.gate, made.gate.channel, made.gate.spatial):
        seen: list = []
        hook = gate.register_forward_hook(partial(note, seen))
        torch.testing.assert_close(made(x), before)
        ((_, (given,), y),) = seen
        torch.testing.assert_close(y, gate(given))
        hook.remove()
    made.gate.spatial.forward = lambda x: x
    assert not torch.allclose(made(x), before)
    assert torch.equal(made(x), plain(made)(x))
    made.gate.channel.gate = lambda x: x.new_zeros(())
    assert torch.equal(made(x), x.relu())


def test_norm_with_more_behind_it():
    """A plugin of `insert` stands between the norm and the plugin."""
    net = AttentionResNet(
        depth=50,
        base_channels=8,
        stem_channels=8,
        plugins=[
            dict(cfg=dict(type='mmdet_attn.ECA'), position='after_conv3')
        ],
    )
    more = dict(cfg=dict(type='mmdet_attn.SE'), at='layer*.bn3')
    net = insert(randomise(net), [more]).double().eval()
    other = copy.deepcopy(net)
    for module in other.modules():
        if type(module) is ECA:
            module.register_forward_hook(lambda *_: None)
    x = torch.randn(1, 3, 40, 40, **DOUBLE)
    grads = []
    for each in (net, other):
        loss = sum(y.square().mean() for y in each(x))
        grads.append(torch.autograd.grad(loss, [*each.parameters()]))
    assert_same(*grads, 1e-6)


def test_two_plugins_at_one_position():
    made, x = block(ECA(32)), torch.randn(2, 32, 9, 8)
    made.add_module('second', SE(32))
    made.inserted['after_conv3'].append('second')
    y = made.norm3(made.conv3(middle(made, x)))
    expected = (made.second(made.gate(y)) + x).relu()
    torch.testing.assert_close(made(x), expected)


def middle(made, x):
    out = made.norm1(made.conv1(x)).relu()
    return made.norm2(made.conv2(out)).relu()


def test_input_and_other_types_stay():
    made, x = block(ECA(32)), torch.randn(2, 32, 9, 8)
    before = x.clone()
    with torch.no_grad():
        made(x)
    assert torch.equal(x, before)
    half, gate = x.half(), torch.rand(2, 32, 1, 1)
    y = add_scaled(x, half.clone(), gate)
    assert y.dtype is torch.float32
    torch.testing.assert_close(y, x + half * gate.half())


def test_programs():
    """Traced, exported and compiled; the trace names the plugin."""
    made, x = block(build_identity('CBAM')), torch.randn(2, 32, 9, 8)
    with torch.no_grad():
        expected = made(x)
        traced = torch.jit.trace(made, x)
        program = torch.export.export(made, (x,)).module()
        compiled = torch.compile(made, backend='aot_eager', fullgraph=True)
        for each in (traced, program, compiled):
            torch.testing.assert_close(each(x), expected)
    assert '(gate).forward(' in traced.code


def test_distributed(tmp_path):
    """The gradients of a wrapped block are its own."""
    made, x = block(build_identity('SE')), torch.randn(2, 32, 9, 8)
    made.gate.alpha.data.fill_(0.5)
    torch.distributed.init_process_group(
        'gloo', f'file://{tmp_path}/store', world_size=1, rank=0
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(made))
        for each in (made, wrapped):
            each(x).square().sum().backward()
        for one, two in zip(
            made.parameters(), wrapped.parameters(), strict=True
        ):
            assert torch.equal(one.grad, two.grad)
    finally:
        torch.distributed.destroy_process_group()
