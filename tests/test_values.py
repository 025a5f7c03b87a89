"""Each module against its formula, written out here with loops in numpy."""

import math

import numpy as np
import pytest
import torch

from mmdet_attn import ECA, SE

SHAPES = [(1, 8, 1, 1), (2, 16, 7, 5), (3, 37, 3, 11), (2, 64, 14, 9)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy(tensor):
    return tensor.detach().numpy()


def randomise(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module.double()


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('kernel_size', [1, 3, 5, 9])
def test_eca(shape, kernel_size):
    module = randomise(ECA(shape[1], kernel_size=kernel_size))
    x = torch.randn(shape, dtype=torch.double)
    weight = numpy(module.conv.weight).ravel()
    mean = numpy(x).mean((2, 3))
    gate = np.zeros_like(mean)
    for n in range(shape[0]):
        for c in range(shape[1]):
            for tap in range(kernel_size):
                source = c + tap - kernel_size // 2
                if 0 <= source < shape[1]:
                    gate[n, c] += weight[tap] * mean[n, source]
    gate = sigmoid(gate)
    expected = numpy(x) * gate[:, :, None, None]
    np.testing.assert_allclose(numpy(module(x)), expected, rtol=1e-12)
    np.testing.assert_allclose(
        numpy(module.gate(x)), gate[:, :, None, None], rtol=1e-12
    )


@pytest.mark.parametrize(
    ('channels', 'size'),
    [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)],
)
def test_eca_adaptive_kernel_size(channels, size):
    """The sizes of the authors' code for their gamma = 2, b = 1."""
    assert ECA(channels).conv.kernel_size == (size,)


def test_eca_gamma_and_b():
    # |(log2(256) + 3) / 1| = 11
    assert ECA(256, gamma=1, b=3).conv.kernel_size == (11,)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('reduction', [2, 16])
@pytest.mark.parametrize('bias', [True, False])
def test_se(shape, reduction, bias):
    module = randomise(SE(shape[1], reduction=reduction, bias=bias))
    x = torch.randn(shape, dtype=torch.double)
    state = {key: numpy(value) for key, value in module.state_dict().items()}
    hidden = max(1, shape[1] // reduction)
    assert state['fc1.weight'].shape == (hidden, shape[1])
    expected = np.empty(shape)
    for n in range(shape[0]):
        y = numpy(x)[n].mean((1, 2))
        y = state['fc1.weight'] @ y + state.get('fc1.bias', 0)
        y = state['fc2.weight'] @ np.maximum(y, 0) + state.get('fc2.bias', 0)
        for c in range(shape[1]):
            expected[n, c] = numpy(x)[n, c] * sigmoid(y[c])
    np.testing.assert_allclose(numpy(module(x)), expected, rtol=1e-12)
    assert ('fc1.bias' in state) == bias


def resnet50_added(build):
    """Parameters of one module after every block of ResNet-50."""
    blocks = {256: 3, 512: 4, 1024: 6, 2048: 3}
    return sum(
        count * sum(p.numel() for p in build(channels).parameters())
        for channels, count in blocks.items()
    )


def test_added_parameters():
    released = {256: 3, 512: 5, 1024: 5, 2048: 7}
    assert resnet50_added(ECA) == 86
    assert resnet50_added(lambda c: ECA(c, kernel_size=3)) == 48
    assert resnet50_added(lambda c: ECA(c, kernel_size=released[c])) == 80
    assert resnet50_added(SE) == 2_530_992
    assert resnet50_added(lambda c: SE(c, bias=False)) == 2_514_944


@pytest.mark.parametrize('alpha', [0.0, 0.25, 1.0])
def test_identity_start_interpolates(alpha):
    """1 + alpha (g - 1), exactly x at 0 and exactly the paper's at 1."""
    module = randomise(ECA(16, kernel_size=3, identity_init=True))
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


def test_adaptive_size_rounds_up_at_ties():
    """(log2 C + 1) / 2 is even at C = 128 and 2048: two odd sizes are near."""
    assert (math.log2(2048) + 1) / 2 == 6
    assert ECA.adaptive_kernel_size(2048, 2, 1) == 7
