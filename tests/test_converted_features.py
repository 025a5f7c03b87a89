"""Converted weights compute what the official network computes.

The networks are written here as functions of the official tensors.
"""

import layouts
import pytest
import torch
from layouts import COUNTS, resnet
from mmengine.registry import MODELS
from torch.nn import functional as F

from mmdet_attn.weights.converters import SOURCES


def random_state(keys):
    """Values with which activations neither grow nor vanish."""
    torch.manual_seed(0)
    state = {}
    for key, shape in keys.items():
        value = torch.randn(shape, dtype=torch.double)
        if key.endswith('running_var'):
            value = value.abs() + 0.5
        elif key.endswith('num_batches_tracked'):
            value = torch.zeros((), dtype=torch.long)
        elif len(shape) == 4 and shape[0] > 1:
            value *= value[0].numel() ** -0.5
        else:
            value = 0.5 * value + 0.7
        state[key] = value
    return state


def norm(s, name, x):
    fields = ('running_mean', 'running_var', 'weight', 'bias')
    return F.batch_norm(x, *(s[f'{name}.{field}'] for field in fields))


def conv_norm(s, conv, bn, x, stride=1, padding=0):
    y = F.conv2d(x, s[f'{conv}.weight'], None, stride, padding)
    return norm(s, bn, y)


def sge_block(s, place, x, stride):
    y = plain_residual(s, place, x, stride)
    n, c, h, w = y.shape
    y = y.view(n * 64, c // 64, h, w)
    t = (y * y.mean((2, 3), keepdim=True)).sum(1).view(n * 64, h * w)
    t = t - t.mean(1, keepdim=True)
    t = (t / (t.std(1, keepdim=True) + 1e-5)).view(n, 64, h, w)
    gate = t * s[f'{place}.sge.weight'] + s[f'{place}.sge.bias']
    gate = gate.sigmoid().view(n * 64, 1, h, w)
    return (y * gate).view(n, c, h, w)


def sa_block(s, place, x, stride):
    y = plain_residual(s, place, x, stride)
    n, c, h, w = y.shape

    def parameter(name):
        return s[f'{place}.sa.{name}'].view(1, 1, -1, 1, 1)

    y = y.view(n, 64, 2, c // 128, h, w)
    a, b = y[:, :, 0], y[:, :, 1]
    pooled = a.mean((3, 4), keepdim=True)
    a = a * (parameter('cweight') * pooled + parameter('cbias')).sigmoid()
    mean = b.mean((3, 4), keepdim=True)
    var = b.var((3, 4), unbiased=False, keepdim=True)
    normed = (b - mean) / (var + 1e-5).sqrt()
    normed = normed * parameter('gn.weight') + parameter('gn.bias')
    b = b * (parameter('sweight') * normed + parameter('sbias')).sigmoid()
    y = torch.stack([a, b], 2).view(n, c, h, w)
    order = [i // 2 + c // 2 * (i % 2) for i in range(c)]
    return y[:, order]


def plain_residual(s, place, x, stride):
    y = F.relu(conv_norm(s, f'{place}.conv1', f'{place}.bn1', x))
    y = conv_norm(s, f'{place}.conv2', f'{place}.bn2', y, stride, 1)
    return conv_norm(s, f'{place}.conv3', f'{place}.bn3', F.relu(y))


def sk_block(s, place, x, stride):
    name = f'{place}.conv1'
    x = F.relu(conv_norm(s, f'{name}.conv', f'{name}.bn', x))
    branches = []
    for path in (0, 1):
        name, d = f'{place}.conv2.paths.{path}', path + 1
        y = F.conv2d(x, s[f'{name}.conv.weight'], None, stride, d, d, 32)
        branches.append(F.relu(norm(s, f'{name}.bn', y)))
    attn = f'{place}.conv2.attn'
    z = (branches[0] + branches[1]).mean((2, 3), keepdim=True)
    z = F.conv2d(z, s[f'{attn}.fc_reduce.weight'])
    z = F.conv2d(
        F.relu(norm(s, f'{attn}.bn', z)), s[f'{attn}.fc_select.weight']
    )
    half = z.shape[1] // 2
    first, second = z[:, :half].exp(), z[:, half:].exp()
    y = (first * branches[0] + second * branches[1]) / (first + second)
    name = f'{place}.conv3'
    return conv_norm(s, f'{name}.conv', f'{name}.bn', y)


def official_features(s, residual, x):
    x = F.relu(conv_norm(s, 'conv1', 'bn1', x, 2, 3))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(COUNTS[50], 1):
        for block in range(count):
            place = f'layer{stage}.{block}'
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if block == 0:
                name = f'{place}.downsample'
                shortcut = conv_norm(s, f'{name}.0', f'{name}.1', x, stride)
            x = F.relu(shortcut + residual(s, place, x, stride))
        yield x


@pytest.mark.parametrize(
    ('source', 'keys', 'residual'),
    [
        ('sge', lambda: resnet(50, layouts.sge), sge_block),
        ('sanet', lambda: resnet(50, layouts.sa), sa_block),
        ('timm', layouts.skresnext, sk_block),
    ],
)
def test_equal_features(source, keys, residual):
    state = random_state(keys())
    with torch.device('meta'):
        network = MODELS.build(SOURCES[source].backbone_cfg(state))
    converted = SOURCES[source].convert(state)
    network.load_state_dict(converted, strict=True, assign=True)
    network.eval()
    x = torch.randn(1, 3, 75, 64, dtype=torch.double)
    with torch.no_grad():
        found = network(x)
        for ours, theirs in zip(
            found, official_features(state, residual, x), strict=True
        ):
            assert 1e-3 < theirs.std() < 1e6
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
