"""Each module against its formula, written out here in the plainest way.

The references are slow and say what the papers and the authors' networks
compute: permutations, H W x H W matrices, pooling layers. One test for each
module, in float64, on maps that are not square.
"""

import math

import numpy as np
import pytest
import torch
from modules import randomise
from torch.nn import functional as F

import mmdet_attn as ma

SHAPE = (2, 32, 7, 5)


def check(module, reference, shape=SHAPE, rtol=1e-9):
    """In eval and in train mode: ``reference(x, weights, norm)``."""
    torch.manual_seed(0)
    randomise(module).double()
    for training in (False, True):
        module.train(training)
        x = torch.randn(shape, dtype=torch.double)
        w = {k: v.detach().clone() for k, v in module.state_dict().items()}

        def norm(name, z, w=w, training=training):
            shape = (1, -1) + (1,) * (z.dim() - 2)
            mean, var = w[name + '.running_mean'], w[name + '.running_var']
            if training:
                axes = [0, *range(2, z.dim())]
                mean, var = z.mean(axes), z.var(axes, unbiased=False)
            z = (z - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
            return z * w[name + '.weight'].view(shape) + w[
                name + '.bias'
            ].view(shape)

        expected = reference(x, w, norm)
        assert expected.std() > 1e-3
        torch.testing.assert_close(module(x), expected, rtol=rtol, atol=1e-9)


def relu(x):
    return x.clamp(min=0)


def linear(x, w, name):
    """A layer on the last dimension, from linear or 1x1 weights."""
    y = x @ w[name + '.weight'].flatten(1).T
    return y + w.get(name + '.bias', 0)


def pointwise(x, w, name):
    """The same on the channels of (N, C, H, W)."""
    return linear(x.permute(0, 2, 3, 1), w, name).permute(0, 3, 1, 2)


def on_map(gate):
    return gate[:, :, None, None]


SHAPES = [(1, 8, 1, 1), (2, 16, 7, 5), (3, 37, 3, 11), (2, 64, 14, 9)]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('kernel_size', [1, 3, 5, 9])
def test_eca(shape, kernel_size):
    def reference(x, w, norm):
        weight, mean = w['conv.weight'].numpy().ravel(), x.mean((2, 3))
        omega = torch.zeros_like(mean)
        for c in range(shape[1]):
            for tap in range(kernel_size):
                source = c + tap - kernel_size // 2
                if 0 <= source < shape[1]:
                    omega[:, c] += weight[tap] * mean[:, source]
        return x * on_map(omega.sigmoid())

    check(ma.ECA(shape[1], kernel_size=kernel_size), reference, shape)


@pytest.mark.parametrize(
    ('channels', 'size'),
    [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)],
)
def test_eca_adaptive_kernel_size(channels, size):
    """The sizes of the authors' code for their gamma = 2, b = 1."""
    assert ma.ECA(channels).conv.kernel_size == (size,)


def test_eca_gamma_and_b():
    # |(log2(256) + 3) / 1| = 11
    assert ma.ECA(256, gamma=1, b=3).conv.kernel_size == (11,)


def test_eca_adaptive_size_rounds_up_at_ties():
    """(log2 C + 1) / 2 is even at C = 128 and 2048: two odd sizes are near."""
    assert (math.log2(2048) + 1) / 2 == 6
    assert ma.ECA.adaptive_kernel_size(2048, 2, 1) == 7


@pytest.mark.parametrize('kernel_size', [1, 3, 7])
def test_ecans(kernel_size):
    """Unfolded windows, one dot product for each channel."""

    def reference(x, w, norm):
        n, c = x.shape[:2]
        mean = x.mean((2, 3)).view(n, 1, 1, c)
        windows = F.unfold(
            mean, (1, kernel_size), padding=(0, kernel_size // 2)
        )
        gate = (windows.transpose(1, 2) * w['conv.weight'][:, 0]).sum(2)
        return x * on_map(gate.sigmoid())

    check(ma.ECANS(32, kernel_size=kernel_size), reference)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('reduction', [2, 16])
@pytest.mark.parametrize('bias', [True, False])
def test_se(shape, reduction, bias):
    module = ma.SE(shape[1], reduction=reduction, bias=bias)
    hidden = max(1, shape[1] // reduction)
    assert module.fc1.weight.shape == (hidden, shape[1])
    assert (module.fc1.bias is not None) == bias

    def reference(x, w, norm):
        y = linear(relu(linear(x.mean((2, 3)), w, 'fc1')), w, 'fc2')
        return x * on_map(1 / (1 + (-y).exp()))

    check(module, reference, shape)


@pytest.mark.parametrize(
    ('name', 'groups'),
    [('Var2', 32), ('Var3', 1), ('GC1', 16), ('GC2', 2), ('GC3', 4)],
)
def test_se_variants(name, groups):
    """sigmoid(W mean(x)) with a block-diagonal W."""

    def reference(x, w, norm):
        blocks = w['conv.weight'].flatten(1).chunk(groups)
        return x * on_map(
            (x.mean((2, 3)) @ torch.block_diag(*blocks).T).sigmoid()
        )

    check(getattr(ma, 'SE' + name)(32), reference)


def test_sevar1():
    check(
        ma.SEVar1(32), lambda x, w, norm: x * on_map(x.mean((2, 3)).sigmoid())
    )


@pytest.mark.parametrize(
    'pool_types', [('avg', 'max'), ('lp',), ('max', 'lse', 'lp', 'avg')]
)
@pytest.mark.parametrize('spatial', [True, False])
def test_cbam(pool_types, spatial):
    def pool(x, name):
        if name == 'lse':
            top = x.amax((2, 3), keepdim=True)
            total = (x - top).exp().sum((2, 3), keepdim=True)
            return (top + total.log()).flatten(1)
        if name == 'lp':
            return F.lp_pool2d(x, 2, x.shape[2:]).flatten(1)
        kind = {'avg': F.adaptive_avg_pool2d, 'max': F.adaptive_max_pool2d}
        return kind[name](x, 1).flatten(1)

    def reference(x, w, norm):
        total = 0
        for name in pool_types:
            hidden = relu(linear(pool(x, name), w, 'channel.fc1'))
            total = total + linear(hidden, w, 'channel.fc2')
        x = x * on_map(total.sigmoid())
        if not spatial:
            return x
        pooled = torch.stack([x.max(1)[0], x.mean(1)], 1)
        weight = w['spatial.conv.weight']
        pooled = F.conv2d(pooled, weight, padding=weight.shape[-1] // 2)
        return x * norm('spatial.norm', pooled).sigmoid()

    module = ma.CBAM(
        32, reduction=4, kernel_size=5, pool_types=pool_types, spatial=spatial
    )
    check(module, reference)


@pytest.mark.parametrize('fusion', ['mul', 'add'])
def test_bam(fusion):
    def reference(x, w, norm):
        channel = relu(
            norm('channel.1', linear(x.mean((2, 3)), w, 'channel.0'))
        )
        channel = linear(channel, w, 'channel.3')
        spatial = relu(norm('spatial.1', pointwise(x, w, 'spatial.0')))
        for index in (3, 6):
            weight, bias = (
                w[f'spatial.{index}.{part}'] for part in ('weight', 'bias')
            )
            spatial = F.conv2d(spatial, weight, bias, padding=2, dilation=2)
            spatial = relu(norm(f'spatial.{index + 1}', spatial))
        spatial = pointwise(spatial, w, 'spatial.9').expand_as(x)
        channel = on_map(channel).expand_as(x)
        joined = channel * spatial if fusion == 'mul' else channel + spatial
        return (1 + joined.sigmoid()) * x

    module = ma.BAM(32, reduction=8, dilation=2, fusion=fusion)
    check(module, reference)
    x = torch.randn(SHAPE, dtype=torch.double)
    torch.testing.assert_close(module.eval()(x), x * module.gate(x))


@pytest.mark.parametrize('fusion', ['max', 'add'])
def test_scse(fusion):
    def reference(x, w, norm):
        hidden = relu(linear(x.mean((2, 3)), w, 'fc1'))
        cse = x * on_map(linear(hidden, w, 'fc2').sigmoid())
        sse = x * pointwise(x, w, 'conv').sigmoid()
        return torch.max(cse, sse) if fusion == 'max' else cse + sse

    module = ma.SCSE(32, reduction=4, fusion=fusion)
    check(module, reference)
    x = torch.randn(SHAPE, dtype=torch.double)
    torch.testing.assert_close(module(x), x * module.gate(x))


@pytest.mark.parametrize('variant', ['theta_minus', 'theta', 'theta_plus'])
@pytest.mark.parametrize('extent', [0, 2, 4, 8])
def test_ge(variant, extent):
    shape = (2, 32, 11, 9)

    def gather(x, w, norm):
        if variant == 'theta_minus' and extent:
            return F.avg_pool2d(x, 2 * extent - 1, extent, extent - 1)
        if variant == 'theta_minus':
            return x.mean((2, 3), keepdim=True)
        if not extent:
            y = (x * w['gather.0.weight'][:, 0]).sum((2, 3), keepdim=True)
            return norm('gather.1', y)
        for step in range(int(math.log2(extent))):
            x = relu(x) if step else x
            x = F.conv2d(x, w[f'gather.{3 * step}.weight'], None, 2, 1, 1, 32)
            x = norm(f'gather.{3 * step + 1}', x)
        return x

    def reference(x, w, norm):
        y = gather(x, w, norm)
        if variant == 'theta_plus':
            y = relu(pointwise(relu(y), w, 'excite.1'))
            y = pointwise(y, w, 'excite.3')
        if extent:
            rows = [h * y.shape[2] // 11 for h in range(11)]
            columns = [v * y.shape[3] // 9 for v in range(9)]
            y = y[:, :, rows][:, :, :, columns]
        return x * y.sigmoid()

    size = None if extent or variant == 'theta_minus' else (11, 9)
    module = ma.GE(32, variant, extent, size)
    check(module, reference, shape)
    if extent:
        assert module.gate(torch.randn(shape).double()).shape == shape


@pytest.mark.parametrize(('channels', 'stride'), [(32, 1), (256, 2), (32, 3)])
def test_gsop_channel(channels, stride):
    """The covariance with the centring matrix of the authors, written out."""

    def reference(x, w, norm):
        z = pointwise(relu(x), w, 'reduce')[:, :, ::stride, ::stride]
        z = relu(norm('norm', z)).flatten(2)
        m = z.shape[2]
        centring = torch.eye(m).double() / m - 1 / m / m
        cov = z @ centring @ z.transpose(1, 2)
        cov = norm('row_norm', cov)
        rows = w['row_conv.weight'].view(16, 4, 16)
        y = torch.einsum('nij,ioj->nio', cov, rows).flatten(1)
        y = linear(y + w['row_conv.bias'], w, 'expand')
        return x * on_map(y.sigmoid())

    given = None if stride < 3 else stride
    module = ma.GSoP(channels, att_dim=16, stride=given)
    check(module, reference, (2, channels, 7, 5))


def test_gsop_position():
    def reference(x, w, norm):
        z = norm('norm', pointwise(relu(x), w, 'reduce'))
        z = F.adaptive_avg_pool2d(z, 8).flatten(2)
        d, m = z.shape[1:]
        centring = torch.eye(d).double() / m - 1 / m / m
        statistic = z.transpose(1, 2) @ centring @ z
        statistic = norm('row_norm', statistic)
        rows = w['row_conv.weight'].view(64, 4, 64)
        y = torch.einsum('nij,ioj->nio', statistic, rows).flatten(1)
        y = linear(relu(y + w['row_conv.bias']), w, 'expand').sigmoid()
        gate = F.adaptive_avg_pool2d(y.view(-1, 1, 8, 8), x.shape[2:])
        return relu(x * gate)

    module = ma.GSoP(32, att_dim=16, mode='position')
    check(module, reference, (2, 32, 13, 9))


@pytest.mark.parametrize('pooling', ['att', 'avg'])
@pytest.mark.parametrize('fusion', [('add',), ('mul',), ('mul', 'add')])
def test_gc(pooling, fusion):
    def branch(context, w, name):
        y = linear(context, w, name + '.0')
        y = (y - y.mean(1, True)) / (
            y.var(1, False, keepdim=True) + 1e-5
        ).sqrt()
        y = y * w[name + '.1.weight'].flatten() + w[name + '.1.bias'].flatten()
        return on_map(linear(relu(y), w, name + '.3'))

    def reference(x, w, norm):
        context = x.mean((2, 3))
        if pooling == 'att':
            mask = pointwise(x, w, 'conv_mask')[:, 0].flatten(1).exp()
            mask = (mask / mask.sum(1, True)).view(-1, 1, *x.shape[2:])
            context = (x * mask).sum((2, 3))
        y = x
        if 'mul' in fusion:
            y = y * branch(context, w, 'channel_mul_conv').sigmoid()
        if 'add' in fusion:
            y = y + branch(context, w, 'channel_add_conv')
        return y

    check(ma.GC(32, 4, pooling=pooling, fusion=fusion), reference)


@pytest.mark.parametrize(
    'mode', ['embedded_gaussian', 'gaussian', 'dot_product', 'concatenation']
)
@pytest.mark.parametrize('sub_sample', [False, True])
@pytest.mark.parametrize('extra', [{}, dict(norm_cfg=dict(type='BN'))])
def test_nonlocal(mode, sub_sample, extra):
    """With the whole H W x H W matrix."""

    def reference(x, w, norm):
        source = F.max_pool2d(x, 2) if sub_sample else x
        g = pointwise(source, w, 'g').flatten(2)
        if mode == 'gaussian':
            theta, phi = x.flatten(2), source.flatten(2)
        else:
            theta = pointwise(x, w, 'theta').flatten(2)
            phi = pointwise(source, w, 'phi').flatten(2)
        if mode == 'concatenation':
            left, right = w['concat.weight'][0].chunk(2)
            f = (left @ theta).unsqueeze(2) + (right @ phi).unsqueeze(1)
            f = relu(f) / g.shape[2]
        else:
            f = theta.transpose(1, 2) @ phi
            if mode == 'dot_product':
                f = f / g.shape[2]
            else:
                scale = 8**0.5 if mode == 'embedded_gaussian' else 1
                f = (f / scale).softmax(2)
        y = (f @ g.transpose(1, 2)).transpose(1, 2)
        y = pointwise(y.reshape(-1, 8, *x.shape[2:]), w, 'out')
        return x + (norm('norm', y) if extra else y)

    module = ma.NonLocal(32, 4, mode=mode, sub_sample=sub_sample, **extra)
    check(module, reference)


def test_nonlocal_without_scale():
    scaled, plain = ma.NonLocal(32), ma.NonLocal(32, use_scale=False)
    randomise(scaled).double()
    state = scaled.state_dict()
    plain.double().load_state_dict(state)
    state = dict(state)
    for part in ('weight', 'bias'):
        state[f'theta.{part}'] = state[f'theta.{part}'] * 4  # 16 ** 0.5
    scaled.load_state_dict(state)
    x = torch.randn(SHAPE, dtype=torch.double)
    torch.testing.assert_close(plain(x), scaled(x))


def test_a2():
    def reference(x, w, norm):
        a, b, v = (pointwise(x, w, f'conv_{k}').flatten(2) for k in 'abv')
        gathered = a @ b.softmax(2).transpose(1, 2)
        z = (gathered @ v.softmax(1)).view(-1, 8, *x.shape[2:])
        return x + pointwise(z, w, 'out')

    check(ma.A2(32, reduction=4), reference)


@pytest.mark.parametrize('channels', [32, 300, 515])
def test_pam(channels):
    """Also with more channels than one head takes, and odd ones."""

    def reference(x, w, norm):
        query, key, value = (
            pointwise(x, w, f'{name}_conv').flatten(2)
            for name in ('query', 'key', 'value')
        )
        attention = (query.transpose(1, 2) @ key).softmax(2)
        out = value @ attention.transpose(1, 2)
        return w['gamma'] * out.view_as(x) + x

    check(ma.PAM(channels), reference, (2, channels, 7, 5))


def test_cam():
    def reference(x, w, norm):
        flat = x.flatten(2)
        energy = flat @ flat.transpose(1, 2)
        energy = energy.amax(2, keepdim=True) - energy
        return w['gamma'] * (energy.softmax(2) @ flat).view_as(x) + x

    check(ma.CAM(32), reference)


@pytest.mark.parametrize(
    'options',
    [{}, dict(groups=4, shuffle=True), dict(channel_sigmoid=False, groups=2)],
)
def test_gam(options):
    groups = options.get('groups', 1)

    def reference(x, w, norm):
        tokens = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])
        gate = linear(relu(linear(tokens, w, 'channel.fc1')), w, 'channel.fc2')
        gate = gate.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
        if options.get('channel_sigmoid', True):
            gate = gate.sigmoid()
        x = x * gate
        z = x
        for index in '12':
            weight, bias = (
                w[f'spatial.conv{index}.{part}'] for part in ('weight', 'bias')
            )
            z = F.conv2d(z, weight, bias, padding=3, groups=groups)
            z = norm(f'spatial.norm{index}', z)
            if index == '1':
                z = relu(z)
                if options.get('shuffle'):
                    order = np.arange(8).reshape(groups, -1).T.ravel()
                    z = z[:, order.tolist()]
        return x * z.sigmoid()

    check(ma.GAM(32, reduction=4, **options), reference)


@pytest.mark.parametrize('reduction', [2, 32])
def test_coordatt(reduction):
    hidden = max(8, 32 // reduction)

    def reference(x, w, norm):
        h = x.shape[2]
        pooled = torch.cat([x.mean(3), x.mean(2)], 2).unsqueeze(3)
        y = norm('norm', pointwise(pooled, w, 'conv1'))
        assert y.shape[1] == hidden
        y = y * (y + 3).clamp(0, 6) / 6
        gate_h = pointwise(y[:, :, :h], w, 'conv_h').sigmoid()
        gate_w = pointwise(y[:, :, h:], w, 'conv_w').sigmoid()
        return x * gate_w.permute(0, 1, 3, 2) * gate_h

    check(ma.CoordAtt(32, reduction=reduction), reference)


@pytest.mark.parametrize('stride', [1, 2])
def test_psaconv2d(stride):
    sizes, groups = (3, 5, 7, 9), (1, 2, 4, 8)

    def reference(x, w, norm):
        features, gates = [], []
        for i, (k, g) in enumerate(zip(sizes, groups, strict=True)):
            weight = w[f'convs.{i}.weight']
            y = F.conv2d(x, weight, None, stride, k // 2, 1, g)
            features.append(y)
            hidden = relu(linear(y.mean((2, 3)), w, 'se.fc1'))
            gates.append(linear(hidden, w, 'se.fc2').sigmoid())
        gates = torch.stack(gates).softmax(0)
        branches = [
            y * on_map(g) for y, g in zip(features, gates, strict=True)
        ]
        return torch.cat(branches[::-1], 1)

    module = ma.PSAConv2d(
        32, 64, stride=stride, kernel_sizes=sizes, groups=groups, reduction=4
    )
    check(module, reference)


@pytest.mark.parametrize('frequencies', ['top16', 'low4', 'bot2', [(3, 5)]])
@pytest.mark.parametrize('dct_size', [7, 14])
@pytest.mark.parametrize('shape', [SHAPE, (2, 32, 14, 14), (1, 32, 33, 20)])
def test_fca(frequencies, dct_size, shape):
    """Adaptive pooling, then the product with the filter, as the authors."""
    given = {
        'top16': list(
            zip(
                [0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2],
                [0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2],
                strict=True,
            )
        ),
        'low4': [(0, 0), (0, 1), (1, 0), (1, 1)],
        'bot2': [(6, 6), (1, 4)],
    }
    pairs = frequencies
    if isinstance(frequencies, str):
        pairs = given[frequencies]

    def basis(f, t):
        f = f * (dct_size // 7)
        value = math.cos(math.pi * f * (t + 0.5) / dct_size)
        return value / math.sqrt(dct_size) * (math.sqrt(2) if f else 1)

    def reference(x, w, norm):
        dct = torch.zeros(32, dct_size, dct_size).double()
        for c in range(32):
            u, v = pairs[c * len(pairs) // 32]
            for i in range(dct_size):
                for j in range(dct_size):
                    dct[c, i, j] = basis(u, i) * basis(v, j)
        z = (F.adaptive_avg_pool2d(x, dct_size) * dct).sum((2, 3))
        return x * on_map(
            linear(relu(linear(z, w, 'fc1')), w, 'fc2').sigmoid()
        )

    module = ma.FCA(32, 4, dct_size=dct_size, frequencies=frequencies)
    # The basis is kept in float32.
    check(module, reference, shape, rtol=1e-6)


def test_fca_default_sizes():
    sizes = {c: ma.FCA(c).dct_size for c in (64, 256, 512, 1024, 2048)}
    assert sizes == {64: 7, 256: 56, 512: 28, 1024: 14, 2048: 7}


@pytest.mark.parametrize('lambda_', [1e-4, 0.1])
def test_simam(lambda_):
    def reference(x, w, norm):
        n = x.shape[2] * x.shape[3] - 1
        d = (x - x.mean((2, 3), keepdim=True)) ** 2
        y = d / (4 * (d.sum((2, 3), keepdim=True) / n + lambda_)) + 0.5
        return x * y.sigmoid()

    check(ma.SimAM(32, lambda_=lambda_), reference)
    conv = ma.SimAMConv2d(8, 32, 3, padding=1, lambda_=lambda_)
    randomise(conv).double()
    x = torch.randn(2, 8, 7, 5, dtype=torch.double)
    plain = F.conv2d(x, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), reference(plain, None, None))


def test_tripletattention():
    """The rotations of the authors: reduce the dimension in second place."""

    def gate(x, w, norm, name):
        pooled = torch.cat([x.max(1, True)[0], x.mean(1, True)], 1)
        weight = w[name + '.conv.weight']
        y = F.conv2d(pooled, weight, padding=weight.shape[-1] // 2)
        return x * norm(name + '.norm', y).sigmoid()

    def reference(x, w, norm):
        cw = gate(x.permute(0, 2, 1, 3), w, norm, 'cw').permute(0, 2, 1, 3)
        hc = gate(x.permute(0, 3, 2, 1), w, norm, 'hc').permute(0, 3, 2, 1)
        return (cw + hc + gate(x, w, norm, 'hw')) / 3

    check(ma.TripletAttention(32, kernel_size=5), reference)


@pytest.mark.parametrize('alpha', [0.0, 0.25, 1.0])
def test_identity_start_interpolates(alpha):
    """1 + alpha (g - 1), exactly x at 0 and exactly the paper's at 1."""
    module = ma.ECA(16, kernel_size=3, identity_init=True).double()
    randomise(module)
    with torch.no_grad():
        module.alpha.fill_(alpha)
    x = torch.randn(2, 16, 5, 6, dtype=torch.double)
    gate = module.gate(x)
    expected = x * (1 + alpha * (gate - 1))
    torch.testing.assert_close(module(x), expected, rtol=1e-14, atol=0)
    if alpha == 0:
        assert torch.equal(module(x), x)
    if alpha == 1:
        assert torch.equal(module(x), x * gate)
