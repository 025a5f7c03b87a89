"""Each module's formula in the most straightforward PyTorch.

What one writes from the paper with the layers at hand: adaptive pooling, the
maximum with its index, ``expand_as``, whole H W x H W matrices. The benchmark
measures every module against it, on the module's own weights, after the two
have been found equal.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
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


def se(m: Any, x: Tensor) -> Tensor:
    return _scale(x, _perceptron(m, _mean(x)))


def eca(m: Any, x: Tensor) -> Tensor:
    y = m.conv(_mean(x).squeeze(-1).transpose(1, 2))
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
    average = _perceptron(m.channel, _mean(x))
    largest = _perceptron(m.channel, F.adaptive_max_pool2d(x, 1))
    x = _scale(x, average + largest)
    return _scale(x, m.spatial.norm(m.spatial.conv(_planes(x))))


def bam(m: Any, x: Tensor) -> Tensor:
    channel = m.channel(_mean(x)).expand_as(x)
    spatial = m.spatial(x).expand_as(x)
    return (1 + (channel * spatial).sigmoid()) * x


def gam(m: Any, x: Tensor) -> Tensor:
    x = _scale(x, m.channel.fc2(F.relu(m.channel.fc1(x))))
    s = m.spatial
    return _scale(x, s.norm2(s.conv2(F.relu(s.norm1(s.conv1(x))))))


def scse(m: Any, x: Tensor) -> Tensor:
    channel = _scale(x, _perceptron(m, _mean(x)))
    return torch.max(channel, _scale(x, m.conv(x)))


def ge(m: Any, x: Tensor) -> Tensor:
    return _scale(x, F.interpolate(m.gather(x), x.shape[2:]))


def gsop(m: Any, x: Tensor) -> Tensor:
    z = F.relu(m.norm(m.reduce(F.relu(x)))).flatten(2)
    centred = z - z.mean(2, True)
    cov = centred @ centred.transpose(1, 2) / z.shape[2]
    return _scale(x, m.expand(m.row_conv(m.row_norm(cov.unsqueeze(3)))))


def gc(m: Any, x: Tensor) -> Tensor:
    mask = m.conv_mask(x).flatten(2).softmax(2).unsqueeze(-1)
    context = torch.matmul(x.flatten(2).unsqueeze(1), mask)
    return x + m.channel_add_conv(context.transpose(1, 2)).expand_as(x)


def _whole_matrix(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax attention between all pairs of positions: (N, C, H W)."""
    q, k, v = q.flatten(2), k.flatten(2), v.flatten(2)
    weights = (scale * q.transpose(1, 2) @ k).softmax(2)
    return v @ weights.transpose(1, 2)


def non_local(m: Any, x: Tensor) -> Tensor:
    y = _whole_matrix(m.theta(x), m.phi(x), m.g(x), m.scale)
    return x + m.norm(m.out(y.unflatten(2, x.shape[2:])))


def pam(m: Any, x: Tensor) -> Tensor:
    q, k, v = m.query_conv(x), m.key_conv(x), m.value_conv(x)
    return x + m.gamma * _whole_matrix(q, k, v, 1.0).view_as(x)


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


def simam(m: Any, x: Tensor) -> Tensor:
    count = x.shape[2] * x.shape[3] - 1
    square = (x - x.mean((2, 3), keepdim=True)).pow(2)
    variance = square.sum((2, 3), keepdim=True) / count
    return x * (square / (4 * (variance + m.lambda_)) + 0.5).sigmoid()


def tripletattention(m: Any, x: Tensor) -> Tensor:
    def plane(branch: Any, turned: Tensor) -> Tensor:
        return _scale(turned, branch.norm(branch.conv(_planes(turned))))

    cw = plane(m.cw, x.permute(0, 2, 1, 3).contiguous()).permute(0, 2, 1, 3)
    hc = plane(m.hc, x.permute(0, 3, 2, 1).contiguous()).permute(0, 3, 2, 1)
    return (plane(m.hw, x) + cw + hc) / 3


def psaconv2d(m: Any, x: Tensor) -> Tensor:
    features = [conv(x) for conv in m.convs][::-1]
    gates = [_perceptron(m.se, _mean(f)).sigmoid() for f in features]
    weights = torch.stack(gates, 1).softmax(1)
    weighted = torch.stack(features, 1) * weights.expand(
        -1, -1, -1, *features[0].shape[2:]
    )
    return weighted.flatten(1, 2)


FORMULAS: dict[str, Formula] = {
    'A2': a2,
    'BAM': bam,
    'CAM': cam,
    'CBAM': cbam,
    'CoordAtt': coordatt,
    'ECA': eca,
    'ECANS': ecans,
    'FCA': fca,
    'GAM': gam,
    'GC': gc,
    'GE': ge,
    'GSoP': gsop,
    'NonLocal': non_local,
    'PAM': pam,
    'PSAConv2d': psaconv2d,
    'SCSE': scse,
    'SE': se,
    'SEGC1': grouped_se,
    'SEGC2': grouped_se,
    'SEGC3': grouped_se,
    'SEVar1': sevar1,
    'SEVar2': grouped_se,
    'SEVar3': grouped_se,
    'SimAM': simam,
    'TripletAttention': tripletattention,
}
