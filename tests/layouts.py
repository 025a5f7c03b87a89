"""Official checkpoints as key and shape, written down from their networks."""

import functools
import math

import torch

COUNTS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}


def norm(name, channels):
    fields = ('weight', 'bias', 'running_mean', 'running_var')
    keys = {f'{name}.{field}': (channels,) for field in fields}
    return keys | {f'{name}.num_batches_tracked': ()}


def layer(name, *shape, bias=True):
    keys = {f'{name}.weight': shape}
    return keys | ({f'{name}.bias': shape[:1]} if bias else {})


def plain3x3(name, planes):
    return {f'{name}.weight': (planes, planes, 3, 3)}


def resnet(
    depth,
    module=lambda place, channels, planes, last: {},
    conv2=plain3x3,
    deep=False,
    stem='',
    classifier='fc',
):
    """Torchvision's names; `module` adds keys to a block."""
    if deep:
        keys = {
            'conv1.0.weight': (32, 3, 3, 3),
            'conv1.3.weight': (32, 32, 3, 3),
            'conv1.6.weight': (64, 32, 3, 3),
        }
        keys |= norm('conv1.1', 32) | norm('conv1.4', 32) | norm('bn1', 64)
    else:
        keys = {f'{stem}conv1.weight': (64, 3, 7, 7)}
        keys |= norm(f'{stem}bn1', 64)
    channels = 64
    for stage, count in enumerate(COUNTS[depth], 1):
        planes = 32 * 2**stage
        wide = planes * (1 if depth < 50 else 4)
        for block in range(count):
            place = f'layer{stage}.{block}'
            first = 3 if depth < 50 else 1
            keys[f'{place}.conv1.weight'] = (planes, channels, first, first)
            keys |= norm(f'{place}.bn1', planes)
            keys |= conv2(f'{place}.conv2', planes)
            keys |= norm(f'{place}.bn2', planes)
            if depth >= 50:
                keys[f'{place}.conv3.weight'] = (wide, planes, 1, 1)
                keys |= norm(f'{place}.bn3', wide)
            if block == 0 and (stage > 1 or channels != wide):
                at = 1 if deep else 0
                shape = (wide, channels, 1, 1)
                keys[f'{place}.downsample.{at}.weight'] = shape
                keys |= norm(f'{place}.downsample.{at + 1}', wide)
            keys |= module(place, wide, planes, block == count - 1)
            channels = wide
    return keys | layer(classifier, 1000, channels)


def eca(sizes, name='eca'):
    return lambda place, *_: {
        f'{place}.{name}.conv.weight': (1, 1, sizes[int(place[5]) - 1])
    }


def cbam(place, c, *_):
    gate = f'{place}.cbam.SpatialGate.spatial'
    return {
        **layer(f'{place}.cbam.ChannelGate.mlp.1', c // 16, c),
        **layer(f'{place}.cbam.ChannelGate.mlp.3', c, c // 16),
        f'{gate}.conv.weight': (1, 2, 7, 7),
        **norm(f'{gate}.bn', 1),
    }


def bam(depth):
    keys = resnet(depth)
    for number in (1, 2, 3):
        c = 32 * 2**number * (1 if depth < 50 else 4)
        h = c // 16
        channel = f'bam{number}.channel_att.gate_c.gate_c'
        spatial = f'bam{number}.spatial_att.gate_s.gate_s'
        keys |= layer(f'{channel}_fc_0', h, c) | norm(f'{channel}_bn_1', h)
        keys |= layer(f'{channel}_fc_final', c, h)
        keys |= layer(f'{spatial}_conv_reduce0', h, c, 1, 1)
        keys |= norm(f'{spatial}_bn_reduce0', h)
        for i in (0, 1):
            keys |= layer(f'{spatial}_conv_di_{i}', h, h, 3, 3)
            keys |= norm(f'{spatial}_bn_di_{i}', h)
        keys |= layer(f'{spatial}_conv_final', 1, h, 1, 1)
    return keys


def fca(place, c, planes, _):
    size = {64: 56, 128: 28, 256: 14, 512: 7}[planes]
    return {
        f'{place}.att.dct_layer.weight': (c, size, size),
        f'{place}.att.fc.0.weight': (c // 16, c),
        f'{place}.att.fc.2.weight': (c, c // 16),
    }


@functools.cache
def dct(channels, size):
    """The authors' buffer, by its formula."""
    us = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
    vs = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)

    def cosine(f):
        f *= size // 7
        scale = math.sqrt((2 if f else 1) / size)
        t = torch.arange(size, dtype=torch.double)
        return scale * (math.pi * f * (t + 0.5) / size).cos()

    maps = [
        cosine(u)[:, None] * cosine(v) for u, v in zip(us, vs, strict=True)
    ]
    return torch.stack(maps).repeat_interleave(channels // 16, 0).float()


def triplet(names, inner):
    def module(place, *_):
        keys = {}
        for name in names:
            branch = f'{place}.triplet_attention.{name}.{inner}'
            keys[f'{branch}.conv.weight'] = (1, 2, 7, 7)
            keys |= norm(f'{branch}.bn', 1)
        return keys

    return module


def gsop(place, c, planes, last):
    if not last:
        return {}
    return {
        **layer(f'{place}.conv_for_DR', 128, c, 1, 1),
        **norm(f'{place}.bn_for_DR', 128),
        **norm(f'{place}.row_bn', 128),
        **layer(f'{place}.row_conv_group', 512, 1, 128, 1),
        **layer(f'{place}.fc_adapt_channels', c, 512, 1, 1),
    }


def psa(name, planes):
    width = planes // 4
    branches = zip((3, 5, 7, 9), (1, 4, 8, 16), strict=True)
    keys = {
        f'{name}.conv_{number}.weight': (width, planes // groups, k, k)
        for number, (k, groups) in enumerate(branches, 1)
    }
    keys |= layer(f'{name}.se.fc1', width // 16, width, 1, 1)
    return keys | layer(f'{name}.se.fc2', width, width // 16, 1, 1)


def sge(place, *_):
    keys = (f'{place}.sge.{name}' for name in ('weight', 'bias'))
    return dict.fromkeys(keys, (1, 64, 1, 1))


def sa(place, c, *_):
    names = ('cweight', 'cbias', 'sweight', 'sbias')
    keys = {f'{place}.sa.{name}': (1, c // 128, 1, 1) for name in names}
    return keys | layer(f'{place}.sa.gn', c // 128)


def conv_bn(name, *shape):
    return {f'{name}.conv.weight': shape} | norm(f'{name}.bn', shape[0])


def skresnext():
    """timm's skresnext50_32x4d."""
    keys = {'conv1.weight': (64, 3, 7, 7)} | norm('bn1', 64)
    channels = 64
    for stage, count in enumerate(COUNTS[50], 1):
        c, d = 64 * 2**stage, 64 if stage == 4 else 32
        for block in range(count):
            place = f'layer{stage}.{block}'
            keys |= conv_bn(f'{place}.conv1', c, channels, 1, 1)
            for path in (0, 1):
                keys |= conv_bn(
                    f'{place}.conv2.paths.{path}', c, c // 32, 3, 3
                )
            attn = f'{place}.conv2.attn'
            keys[f'{attn}.fc_reduce.weight'] = (d, c, 1, 1)
            keys |= norm(f'{attn}.bn', d)
            keys[f'{attn}.fc_select.weight'] = (2 * c, d, 1, 1)
            keys |= conv_bn(f'{place}.conv3', 2 * c, c, 1, 1)
            if block == 0:
                shape = (2 * c, channels, 1, 1)
                keys[f'{place}.downsample.0.weight'] = shape
                keys |= norm(f'{place}.downsample.1', 2 * c)
            channels = 2 * c
    return keys | layer('fc', 1000, channels)


def squeeze(first, second, divide):
    """SE as 1x1 convolutions with biases."""

    def module(place, c, *_):
        hidden = divide(c)
        keys = layer(f'{place}.{first}', hidden, c, 1, 1)
        return keys | layer(f'{place}.{second}', c, hidden, 1, 1)

    return module


def gc_detector():
    def module(place, c, *_):
        if place.startswith('layer1'):
            return {}
        branch = f'{place}.context_block.channel_add_conv'
        return {
            **layer(f'{place}.context_block.conv_mask', 1, c, 1, 1),
            **layer(f'{branch}.0', c // 16, c, 1, 1),
            f'{branch}.1.weight': (c // 16, 1, 1),
            f'{branch}.1.bias': (c // 16, 1, 1),
            **layer(f'{branch}.3', c, c // 16, 1, 1),
        }

    keys = resnet(50, module)
    keys = {
        f'backbone.{k}': v for k, v in keys.items() if not k.startswith('fc.')
    }
    keys |= layer('neck.lateral_convs.0.conv', 256, 256, 1, 1)
    return keys | layer('bbox_head.fc_cls', 81, 1024)


def mmpretrain(keys):
    return {
        ('head.' if k.startswith('fc.') else 'backbone.') + k: v
        for k, v in keys.items()
    }


def mobilenet(expand, last, classifier):
    """`expand` and its like give the keys of a block."""
    keys = {'features.0.0.weight': (32, 3, 3, 3)} | norm('features.0.1', 32)
    channels, number = 32, 1
    plan = (16, 24, 32, 64, 96, 160, 320)
    for out, count in zip(plan, (1, 2, 3, 4, 3, 3, 1), strict=True):
        for _ in range(count):
            hidden = channels * (1 if number == 1 else 6)
            name = f'features.{number}.conv'
            keys |= expand(name, channels, hidden, out, number > 1)
            channels, number = out, number + 1
    keys[f'{last}.0.weight'] = (1280, 320, 1, 1)
    return keys | norm(f'{last}.1', 1280) | layer(classifier, 1000, 1280)


def eca_block(name, channels, hidden, out, expands):
    keys, at = {}, 0
    if expands:
        keys[f'{name}.0.0.weight'] = (hidden, channels, 1, 1)
        keys |= norm(f'{name}.0.1', hidden)
        at = 1
    keys[f'{name}.{at}.0.weight'] = (hidden, 1, 3, 3)
    keys |= norm(f'{name}.{at}.1', hidden)
    keys[f'{name}.{at + 1}.weight'] = (out, hidden, 1, 1)
    keys |= norm(f'{name}.{at + 2}', out)
    keys[f'{name}.{at + 3}.conv.weight'] = (1, 1, 1 if out < 96 else 3)
    return keys


def coordatt_block(name, channels, hidden, out, expands):
    if not expands:
        return {
            f'{name}.0.weight': (hidden, 1, 3, 3),
            **norm(f'{name}.1', hidden),
            f'{name}.3.weight': (out, hidden, 1, 1),
            **norm(f'{name}.4', out),
        }
    inner = max(8, hidden // 32)
    return {
        f'{name}.0.weight': (hidden, channels, 1, 1),
        **norm(f'{name}.1', hidden),
        f'{name}.3.weight': (hidden, 1, 3, 3),
        **norm(f'{name}.4', hidden),
        **layer(f'{name}.6.conv1', inner, hidden, 1, 1),
        **norm(f'{name}.6.bn1', inner),
        **layer(f'{name}.6.conv2', hidden, inner, 1, 1),
        **layer(f'{name}.6.conv3', hidden, inner, 1, 1),
        f'{name}.7.weight': (out, hidden, 1, 1),
        **norm(f'{name}.8', out),
    }


def fill(keys):
    """A state dict in which each tensor has a value of its own.

    Elements of a tensor share their memory: the dicts are small, and a
    converter that writes into them fails.
    """
    state = {}
    for value, (key, shape) in enumerate(keys.items(), 1):
        counter = key.endswith('num_batches_tracked')
        kind = torch.long if counter else torch.float
        state[key] = torch.tensor(value, dtype=kind).expand(shape)
        if key.endswith('dct_layer.weight'):
            state[key] = dct(shape[0], shape[1])
    return state
