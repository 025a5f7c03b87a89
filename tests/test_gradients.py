"""Attention in blocks, and poolings: values, gradients and memory."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import mmdet_attn as ma
from mmdet_attn.cost.timing import peak_mib
from mmdet_attn.plugins import blockwise
from mmdet_attn.plugins.blockwise import blockwise_attention
from mmdet_attn.plugins.cbam import POOLS
from mmdet_attn.plugins.pooling import mean


def randn(*shape, dtype=torch.double):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=dtype).requires_grad_()


def whole(q, k, v, scale):
    return v @ (scale * q.transpose(1, 2) @ k).softmax(2).transpose(1, 2)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 rows, the fewest."""
    monkeypatch.setattr(blockwise, 'BLOCK', 1)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('positions', [16, 17, 40])
@pytest.mark.parametrize('width', [3, 5])
def test_attention_in_blocks(positions, width):
    """Equal to the whole matrix, where the last block is short, too.

    Values as wide as keys take torch's own function.
    """
    q, k = randn(2, 3, positions), randn(2, 3, 21)
    v = randn(2, width, 21)
    ours = blockwise_attention(q, k, v, 0.7)
    expected = whole(q, k, v, 0.7)
    torch.testing.assert_close(ours, expected)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), ours.detach().cos()),
        torch.autograd.grad(expected, (q, k, v), expected.detach().cos()),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures('small_blocks')
def test_attention_in_blocks_can_be_differentiated_twice():
    inputs = randn(1, 2, 18), randn(1, 2, 4), randn(1, 3, 4)
    assert gradcheck(blockwise_attention, inputs)
    assert gradgradcheck(blockwise_attention, inputs)


@pytest.mark.usefixtures('small_blocks')
def test_attention_in_blocks_sums_half_precision_in_single():
    """1,600 gradients of 1 add up to 1,600; bfloat16 alone stops at 256."""
    q = torch.zeros(1, 2, 1600, dtype=torch.bfloat16).requires_grad_()
    v = torch.zeros(1, 1, 1, dtype=torch.bfloat16).requires_grad_()
    blockwise_attention(q, q[:, :, :1], v).sum().backward()
    assert v.grad.item() == 1600


@pytest.mark.usefixtures('small_blocks')
def test_gradients_of_each_sample():
    """torch.func sees through the function of our own."""
    inputs = randn(3, 1, 2, 18).detach()

    def run(q):
        k, v = q[:, :, :5], q[:, :1, :5]
        return blockwise_attention(q, k, v).cos().sum()

    grad = torch.func.grad(run)
    each = torch.stack([grad(q) for q in inputs])
    torch.testing.assert_close(torch.func.vmap(grad)(inputs), each)


@pytest.mark.parametrize('name', ['PAM', 'NonLocal'])
def test_holds_no_whole_matrix(name):
    """6,400 positions: a matrix of 156 MiB, of which training keeps many."""
    module = getattr(ma, name)(16)
    x = torch.randn(1, 16, 80, 80).requires_grad_()
    assert peak_mib(lambda: module(x).sum().backward(), 'cpu') < 80


@pytest.mark.parametrize('dims', [(2, 3), (1,), (2,)])
@pytest.mark.parametrize('keep', [True, False])
def test_mean(dims, keep):
    x = randn(2, 3, 4, 5)
    torch.testing.assert_close(mean(x, *dims, keep=keep), x.mean(dims, keep))
    assert gradcheck(lambda x: mean(x, *dims, keep=keep), (x,))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mean_of_large_numbers_in_half_precision(dtype):
    """Their sum does not fit into float16, with or without a gradient."""
    x = torch.full((1, 1, 40, 40), 3e4, dtype=dtype).requires_grad_()
    for y in (x, x.detach()):
        assert mean(y, 2, 3).dtype == dtype
        torch.testing.assert_close(mean(y, 2, 3), y[:, :, 0, 0])


def test_gradient_of_a_mean_stays_small():
    """No map is written for it: 16 MiB here."""
    x = torch.randn(1, 64, 256, 256).requires_grad_()

    def run():
        return torch.autograd.grad(mean(x, 2, 3).sum(), x)

    assert peak_mib(run, 'cpu') < 1


def test_global_maximum_takes_one_of_equals():
    """As max pooling, whose gradient goes to one place."""
    x = torch.tensor([[[[1.0, 3.0], [3.0, 2.0]]]], requires_grad=True)
    y = POOLS['max'](x)
    assert y.tolist() == [[3.0]]
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert sorted(grad.flatten().tolist()) == [0, 0, 0, 1]
