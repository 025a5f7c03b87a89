"""Each module's formula in plain PyTorch, for every form of the module.

They are what one writes from the paper with the layers at hand: adaptive
pooling, `expand_as`, whole H W x H W matrices. A formula takes a module, for
its weights and arguments, and a map. The tests hold each module against its
formula, and the benchmark measures it against it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Formula = Callable[[Any, Tensor], Tensor]


def _mean(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1)


def _scale(x: Tensor, gate: Tensor) -> Tensor:
    return x * gate.sigmoid().expand_as(x)


def _planes(x: Tensor) -> Tensor:
    """The maximum and the mean over the channels."""
    return torch.cat([x.max(1, True)[0], x.mean(1, True)], 1)


def _perceptron(m: Any, y: Tensor) -> Tensor:
    hidden = F.relu(m.fc1(y.flatten(1)))
    return m.fc2(hidden)[:, :, None, None]


def _conv(layer: nn.Conv2d, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """With the weights of a layer, and nothing else of it."""
    return F.conv2d(x, layer.weight, layer.bias, *args, **kwargs)


def se(m: Any, x: Tensor) -> Tensor:
    return _scale(x, _perceptron(m, _mean(x)))


def eca(m: Any, x: Tensor) -> Tensor:
    y = _mean(x).squeeze(-1).transpose(1, 2)
    y = F.conv1d(y, m.conv.weight, padding=m.conv.weight.shape[2] // 2)
    return _scale(x, y.transpose(1, 2).unsqueeze(-1))


def ecans(m: Any, x: Tensor) -> Tensor:
    n, c, k = x.shape[0], x.shape[1], m.kernel_size
    windows = F.unfold(_mean(x).view(n, 1, 1, c), (1, k), padding=(0, k // 2))
    return _scale(x, m.conv(windows.transpose(1, 2)).unsqueeze(-1))


def sevar1(m: Any, x: Tensor) -> Tensor:
    return _scale(x, _mean(x))


def grouped_se(m: Any, x: Tensor) -> Tensor:
    return _scale(x, m.conv(_mean(x)))


def fca(m: Any, x: Tensor) -> Tensor:
    pooled = F.adaptive_avg_pool2d(x, m.dct_size)
    basis = m.u[:, :, None] * m.v[:, None, :]
    basis = basis.repeat_interleave(x.shape[1] // len(basis), 0)
    return _scale(x, _perceptron(m, (pooled * basis).sum((2, 3))))


def cbam(m: Any, x: Tensor) -> Tensor:
    pools: dict[str, Callable[[Tensor], Tensor]] = {
        'avg': _mean,
        'max': lambda x: F.adaptive_max_pool2d(x, 1),
        'lp': lambda x: x.square().sum((2, 3)).sqrt(),
        'lse': lambda x: x.exp().sum((2, 3)).log(),
    }
    names = m.channel.pool_types
    total = sum(_perceptron(m.channel, pools[name](x)) for name in names)
    x = _scale(x, torch.as_tensor(total))
    if m.spatial is None:
        return x
    padding = m.spatial.conv.weight.shape[2] // 2
    y = _conv(m.spatial.conv, _planes(x), padding=padding)
    return _scale(x, m.spatial.norm(y))


def bam(m: Any, x: Tensor) -> Tensor:
    channel = F.relu(m.channel[1](_conv(m.channel[0], _mean(x))))
    channel = _conv(m.channel[3], channel).expand_as(x)
    spatial = F.relu(m.spatial[1](_conv(m.spatial[0], x)))
    for conv, norm in ((m.spatial[3], m.spatial[4]), m.spatial[6:8]):
        d = m.dilation
        spatial = F.relu(norm(_conv(conv, spatial, padding=d, dilation=d)))
    spatial = _conv(m.spatial[9], spatial).expand_as(x)
    joined = channel * spatial if m.fusion == 'mul' else channel + spatial
    return (1 + joined.sigmoid()) * x


def gam(m: Any, x: Tensor) -> Tensor:
    gate = m.channel.fc2(F.relu(m.channel.fc1(x)))
    x = _scale(x, gate) if m.channel.sigmoid else x * gate
    s = m.spatial
    groups = s.conv1.groups
    y = F.relu(s.norm1(_conv(s.conv1, x, padding=3, groups=groups)))
    if s.shuffle > 1:
        y = y.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    return _scale(x, s.norm2(_conv(s.conv2, y, padding=3, groups=groups)))


def scse(m: Any, x: Tensor) -> Tensor:
    channel = _scale(x, _perceptron(m, _mean(x)))
    spatial = _scale(x, m.conv(x))
    if m.fusion == 'add':
        return channel + spatial
    return torch.max(channel, spatial)


def ge(m: Any, x: Tensor) -> Tensor:
    extent = m.extent
    if m.variant != 'theta_minus':
        stride, padding = (2, 1) if extent else (1, 0)
        y = x
        for index in range(0, len(m.gather), 3):
            y = F.relu(y) if index else y
            y = _conv(m.gather[index], y, stride, padding, groups=x.shape[1])
            y = m.gather[index + 1](y)
    elif extent:
        y = F.avg_pool2d(x, 2 * extent - 1, extent, extent - 1)
    else:
        y = _mean(x)
    if m.variant == 'theta_plus':
        y = m.excite[3](F.relu(m.excite[1](F.relu(y))))
    return _scale(x, F.interpolate(y, x.shape[2:]))


def gsop(m: Any, x: Tensor) -> Tensor:
    z = m.norm(m.reduce(F.relu(x[:, :, :: m.stride, :: m.stride])))
    if m.mode == 'channel':
        z = F.relu(z).flatten(2)
        centred = z - z.mean(2, True)
        statistic = centred @ centred.transpose(1, 2) / z.shape[2]
    else:
        # Centred with 1 / 64, where a covariance has 1 / d.
        z = F.adaptive_avg_pool2d(z, 8).flatten(2)
        d = z.shape[1]
        ones = torch.ones(d, d, dtype=z.dtype, device=z.device)
        centring = torch.diag(ones[0]) / 64 - ones / 64**2
        statistic = z.transpose(1, 2) @ centring @ z
    rows = m.row_conv(m.row_norm(statistic.unsqueeze(3)))
    if m.mode == 'channel':
        return _scale(x, m.expand(rows))
    gate = m.expand(F.relu(rows)).sigmoid().view(-1, 1, 8, 8)
    height, width = x.shape[2:]
    return F.relu(x * F.adaptive_avg_pool2d(gate, (height, width)))


def gc(m: Any, x: Tensor) -> Tensor:
    if m.conv_mask is None:
        context = _mean(x)
    else:
        mask = m.conv_mask(x).flatten(2).softmax(2).unsqueeze(-1)
        context = torch.matmul(x.flatten(2).unsqueeze(1), mask)
        context = context.transpose(1, 2)
    y = x
    if m.channel_mul_conv is not None:
        y = _scale(y, m.channel_mul_conv(context))
    if m.channel_add_conv is not None:
        y = y + m.channel_add_conv(context).expand_as(x)
    return y


def _whole_matrix(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax attention between all pairs of positions: (N, C, H W)."""
    q, k, v = q.flatten(2), k.flatten(2), v.flatten(2)
    weights = (scale * q.transpose(1, 2) @ k).softmax(2)
    return v @ weights.transpose(1, 2)


def non_local(m: Any, x: Tensor) -> Tensor:
    source = F.max_pool2d(x, 2) if m.sub_sample else x
    g = m.g(source)
    if m.mode == 'gaussian':
        y = _whole_matrix(x, source, g, 1.0)
    elif m.mode == 'embedded_gaussian':
        y = _whole_matrix(m.theta(x), m.phi(source), g, m.scale)
    else:
        theta, phi = m.theta(x).flatten(2), m.phi(source).flatten(2)
        if m.mode == 'dot_product':
            f = theta.transpose(1, 2) @ phi
        else:
            left, right = m.concat.weight[0].chunk(2)
            f = (left @ theta).unsqueeze(2) + (right @ phi).unsqueeze(1)
            f = F.relu(f)
        y = g.flatten(2) @ f.transpose(1, 2) / f.shape[2]
    return x + m.norm(m.out(y.unflatten(2, x.shape[2:])))


def pam(m: Any, x: Tensor) -> Tensor:
    q, k, v = m.query_conv(x), m.key_conv(x), m.value_conv(x)
    return x + m.gamma * _whole_matrix(q, k, v, 1.0).view_as(x)


def crisscross(m: Any, x: Tensor) -> Tensor:
    rows, columns = (torch.ones(side, side) for side in x.shape[2:])
    # Pairs of one row or of one column, among all pairs of positions.
    cross = torch.kron(torch.diag(rows[0]), columns)
    cross = cross + torch.kron(rows, torch.diag(columns[0]))
    outside = (cross == 0).to(x.device)
    for _ in range(m.recurrence):
        q, k, v = m.query_conv(x), m.key_conv(x), m.value_conv(x)
        logits = q.flatten(2).transpose(1, 2) @ k.flatten(2)
        weights = logits.masked_fill(outside, -torch.inf).softmax(2)
        y = v.flatten(2) @ weights.transpose(1, 2)
        x = x + m.gamma * y.view_as(x)
    return x


def cam(m: Any, x: Tensor) -> Tensor:
    flat = x.flatten(2)
    energy = flat @ flat.transpose(1, 2)
    energy = energy.max(2, True)[0].expand_as(energy) - energy
    return m.gamma * (energy.softmax(2) @ flat).view_as(x) + x


def a2(m: Any, x: Tensor) -> Tensor:
    maps = m.conv_b(x).flatten(2).softmax(2)
    gathered = m.conv_a(x).flatten(2) @ maps.transpose(1, 2)
    y = gathered @ m.conv_v(x).flatten(2).softmax(1)
    return x + m.out(y.unflatten(2, x.shape[2:]))


def coordatt(m: Any, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    rows = F.adaptive_avg_pool2d(x, (height, 1))
    columns = F.adaptive_avg_pool2d(x, (1, width)).permute(0, 1, 3, 2)
    y = F.hardswish(m.norm(m.conv1(torch.cat([rows, columns], 2))))
    rows, columns = y.split([height, width], 2)
    columns = m.conv_w(columns.permute(0, 1, 3, 2)).sigmoid()
    return x * columns.expand_as(x) * m.conv_h(rows).sigmoid().expand_as(x)


def srm(m: Any, x: Tensor) -> Tensor:
    style = torch.stack([x.mean((2, 3)), (x.var((2, 3)) + 1e-5).sqrt()], dim=2)
    z = (style * m.cfc).sum(2)
    return _scale(x, m.norm(z[:, :, None, None]))


def nam(m: Any, x: Tensor) -> Tensor:
    gamma = m.norm.weight.data
    w = gamma.abs() / gamma.abs().sum()
    return _scale(x, m.norm(x) * w.view(1, -1, 1, 1))


def gct(m: Any, x: Tensor) -> Tensor:
    alpha, gamma, beta = m.alpha, m.gamma, m.beta
    if m.mode == 'l2':
        e = alpha * (x.pow(2).sum((2, 3), keepdim=True) + 1e-5).sqrt()
        n = e / (e.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    else:
        e = alpha * x.abs().sum((2, 3), keepdim=True)
        n = e / (e.abs().mean(1, keepdim=True) + 1e-5)
    return x * (1 + torch.tanh(gamma * n + beta))


def spm(m: Any, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    rows = F.adaptive_avg_pool2d(x, (height, 1))
    columns = F.adaptive_avg_pool2d(x, (1, width))
    rows = m.bn1(_conv(m.conv1, rows, padding=(1, 0))).expand_as(x)
    columns = m.bn2(_conv(m.conv2, columns, padding=(0, 1))).expand_as(x)
    return _scale(x, _conv(m.conv3, F.relu(rows + columns)))


def simam(m: Any, x: Tensor) -> Tensor:
    count = x.shape[2] * x.shape[3] - 1
    square = (x - x.mean((2, 3), keepdim=True)).pow(2)
    variance = square.sum((2, 3), keepdim=True) / count
    return x * (square / (4 * (variance + m.lambda_)) + 0.5).sigmoid()


def tripletattention(m: Any, x: Tensor) -> Tensor:
    def plane(branch: Any, turned: Tensor) -> Tensor:
        padding = branch.conv.weight.shape[2] // 2
        y = _conv(branch.conv, _planes(turned), padding=padding)
        return _scale(turned, branch.norm(y))

    cw = plane(m.cw, x.permute(0, 2, 1, 3).contiguous()).permute(0, 2, 1, 3)
    hc = plane(m.hc, x.permute(0, 3, 2, 1).contiguous()).permute(0, 3, 2, 1)
    return (plane(m.hw, x) + cw + hc) / 3


def ese(m: Any, x: Tensor) -> Tensor:
    return x * (F.relu6(_conv(m.fc, _mean(x)) + 3) / 6).expand_as(x)


def sge(m: Any, x: Tensor) -> Tensor:
    y = x.unflatten(1, (m.groups, -1)).flatten(0, 1)
    t = (y * _mean(y)).sum(1).view(len(x), m.groups, *x.shape[2:])
    std, average = torch.std_mean(t, (2, 3), keepdim=True)
    gate = m.weight * (t - average) / (std + 1e-5) + m.bias
    return _scale(y, gate.view(-1, 1, *x.shape[2:])).view_as(x)


def shuffleattention(m: Any, x: Tensor) -> Tensor:
    a, b = x.unflatten(1, (m.groups, -1)).flatten(0, 1).chunk(2, 1)
    a = _scale(a, m.cweight * _mean(a) + m.cbias)
    normed = F.instance_norm(b, weight=m.gn.weight, bias=m.gn.bias)
    b = _scale(b, m.sweight * normed + m.sbias)
    first, second = torch.cat([a, b], 1).view_as(x).chunk(2, 1)
    return torch.stack([first, second], 2).flatten(1, 2)


def skconv2d(m: Any, x: Tensor) -> Tensor:
    branches = [
        F.relu(norm(_conv(conv, x, conv.stride[0], d, d, conv.groups)))
        for d, conv, norm in zip((1, 2), m.convs, m.norms, strict=True)
    ]
    z = F.relu(m.norm(_conv(m.fc1, _mean(branches[0] + branches[1]))))
    first, second = _conv(m.fc2, z).chunk(2, 1)
    weights = torch.stack([first, second]).softmax(0)
    return (torch.stack(branches) * weights).sum(0)


def psaconv2d(m: Any, x: Tensor) -> Tensor:
    features: list[Tensor] = []
    for conv in m.convs:
        padding = conv.weight.shape[2] // 2
        y = _conv(conv, x, conv.stride[0], padding, groups=conv.groups)
        features.insert(0, y)
    gates = [_perceptron(m.se, _mean(f)).sigmoid() for f in features]
    weights = torch.stack(gates, 1).softmax(1)
    weighted = torch.stack(features, 1) * weights.expand(
        -1, -1, -1, *features[0].shape[2:]
    )
    return weighted.flatten(1, 2)


def ema(m: Any, x: Tensor) -> Tensor:
    n, c, height, width = x.shape
    z = x.reshape(n * m.groups, c // m.groups, height, width)
    rows = F.adaptive_avg_pool2d(z, (height, 1))
    columns = F.adaptive_avg_pool2d(z, (1, width)).permute(0, 1, 3, 2)
    gates = _conv(m.conv1x1, torch.cat([rows, columns], 2)).sigmoid()
    rows, columns = gates.split([height, width], 2)
    x1 = F.instance_norm(
        z * rows * columns.permute(0, 1, 3, 2),
        weight=m.gn.weight,
        bias=m.gn.bias,
    )
    x2 = _conv(m.conv3x3, z, padding=1)
    weighted = _mean(x1).softmax(1) * x2 + _mean(x2).softmax(1) * x1
    return _scale(z, weighted.sum(1, True)).view_as(x)


def _attended_value(m: Any, x: Tensor) -> Tensor:
    mask = m.conv_q_right(x).flatten(2).softmax(2)
    value = m.conv_v_right(x).flatten(2)
    return (value * mask).sum(2)[:, :, None, None]


def polarized_parallel(m: Any, x: Tensor) -> Tensor:
    product = (_mean(m.conv_q_left(x)) * m.conv_v_left(x)).sum(1, True)
    spatial = product.flatten(2).softmax(2).view_as(product)
    return _scale(x, m.conv_up(_attended_value(m, x))) + _scale(x, spatial)


def polarized_sequential(m: Any, x: Tensor) -> Tensor:
    first, norm, _, last = m.conv_up
    hidden = F.relu(norm(_conv(first, _attended_value(m, x))))
    x = _scale(x, _conv(last, hidden))
    value = m.conv_v_left(x)
    value = value.flatten(2).softmax(2).view_as(value)
    return _scale(x, (_mean(m.conv_q_left(x)) * value).sum(1, True))


def lsk(m: Any, x: Tensor) -> Tensor:
    channels = x.shape[1]
    near = _conv(m.conv0, x, padding=2, groups=channels)
    far = _conv(m.conv_spatial, near, padding=9, dilation=3, groups=channels)
    a, b = _conv(m.conv1, near), _conv(m.conv2, far)
    both = torch.cat([a, b], 1)
    pooled = torch.cat([both.mean(1, True), both.max(1, True)[0]], 1)
    scales = _conv(m.conv_squeeze, pooled, padding=3).sigmoid()
    return x * _conv(m.conv, a * scales[:, :1] + b * scales[:, 1:])


def lsk_unit(m: Any, x: Tensor) -> Tensor:
    y = F.gelu(_conv(m.proj_1, x))
    return x + _conv(m.proj_2, lsk(m.spatial_gating_unit, y))


def lska(m: Any, x: Tensor) -> Tensor:
    y = x
    for conv in (m.conv0h, m.conv0v, m.conv_spatial_h, m.conv_spatial_v):
        dilation = conv.dilation[0]
        # One of the two sizes is 1.
        reach = [dilation * (side - 1) // 2 for side in conv.weight.shape[2:]]
        y = F.pad(y, (reach[1], reach[1], reach[0], reach[0]))
        y = _conv(conv, y, dilation=dilation, groups=x.shape[1])
    return x * _conv(m.conv1, y)


def caa(m: Any, x: Tensor) -> Tensor:
    y = _conv(m.conv1.conv, F.avg_pool2d(F.pad(x, (3, 3, 3, 3)), 7, 1))
    reach = m.h_conv.conv.weight.shape[3] // 2
    y = _conv(m.h_conv.conv, F.pad(y, (reach, reach)), groups=x.shape[1])
    y = F.pad(y, (0, 0, reach, reach))
    y = _conv(m.v_conv.conv, y, groups=x.shape[1])
    return _scale(x, _conv(m.conv2.conv, y))


FORMULAS: dict[str, Formula] = {
    'A2': a2,
    'BAM': bam,
    'CAA': caa,
    'CAM': cam,
    'CBAM': cbam,
    'CoordAtt': coordatt,
    'CrissCross': crisscross,
    'ECA': eca,
    'ECANS': ecans,
    'ESE': ese,
    'EMA': ema,
    'FCA': fca,
    'GAM': gam,
    'GC': gc,
    'GCT': gct,
    'GE': ge,
    'GSoP': gsop,
    'LSK': lsk,
    'LSKA': lska,
    'LSKUnit': lsk_unit,
    'NAM': nam,
    'NonLocal': non_local,
    'PAM': pam,
    'PSAConv2d': psaconv2d,
    'PolarizedParallel': polarized_parallel,
    'PolarizedSequential': polarized_sequential,
    'SCSE': scse,
    'SE': se,
    'SEGC1': grouped_se,
    'SEGC2': grouped_se,
    'SEGC3': grouped_se,
    'SEVar1': sevar1,
    'SEVar2': grouped_se,
    'SEVar3': grouped_se,
    'SGE': sge,
    'SKConv2d': skconv2d,
    'ShuffleAttention': shuffleattention,
    'SPM': spm,
    'SRM': srm,
    'SimAM': simam,
    'TripletAttention': tripletattention,
}
