"""What the modules' own autograd functions and poolings compute."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import mmdet_attn as ma
from mmdet_attn.cost.timing import peak_mib
from mmdet_attn.plugins import blockwise
from mmdet_attn.plugins.blockwise import blockwise_attention
from mmdet_attn.plugins.pooling import mean


def randn(*shape, dtype=torch.double):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=dtype).requires_grad_()


def whole(q, k, v):
    return v @ (q.transpose(1, 2) @ k).softmax(2).transpose(1, 2)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 rows, the fewest."""
    monkeypatch.setattr(attend_file, 'BLOCK', 1)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('positions', [16, 17, 40])
def test_attend_in_blocks(positions):
    """Equal to the whole matrix, where the last block is short, too."""
    q, k = randn(2, 3, positions), randn(2, 3, 21)
    v = randn(2, 5, 21)
    ours, expected = attend(q, k, v), whole(q, k, v)
    torch.testing.assert_close(ours, expected)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), ours.detach().cos()),
        torch.autograd.grad(expected, (q, k, v), expected.detach().cos()),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures('small_blocks')
def test_attend_can_be_differentiated_twice():
    inputs = randn(1, 2, 18), randn(1, 2, 4), randn(1, 3, 4)
    assert gradcheck(attend, inputs)
    assert gradgradcheck(attend, inputs)


@pytest.mark.usefixtures('small_blocks')
def test_attend_sums_half_precision_in_single():
    """1,600 gradients of 1 add up to 1,600; bfloat16 alone stops at 256."""
    q = torch.zeros(1, 2, 1600, dtype=torch.bfloat16).requires_grad_()
    v = torch.zeros(1, 1, 1, dtype=torch.bfloat16).requires_grad_()
    attend(q, q[:, :, :1], v).sum().backward()
    assert v.grad.item() == 1600


def test_pam_holds_no_whole_matrix():
    """6,400 positions: a matrix of 156 MiB, of which training keeps many."""
    module = ma.PAM(16)
    x = torch.randn(1, 16, 80, 80).requires_grad_()
    assert peak_mib(lambda: module(x).sum().backward(), 'cpu') < 80


@pytest.mark.parametrize('rows', [1, 2, 7])
def test_gram(rows):
    x = randn(2, rows, 5)
    torch.testing.assert_close(gram(x), x @ x.transpose(1, 2))
    assert gradcheck(gram, (x,))
    assert gradgradcheck(gram, (x,))


@pytest.mark.usefixtures('small_blocks')
def test_gradients_of_each_sample():
    """torch.func sees through the functions of our own."""
    q = randn(3, 1, 2, 18).detach()
    x, c, s = (
        randn(3, 1, *shape).detach()
        for shape in ((2, 4, 5), (2, 1, 1), (1, 4, 5))
    )
    for function, inputs in (
        (lambda q: attend(q, q[:, :, :5], q[:, :, :5]).cos().sum(), (q,)),
        (lambda q: gram(q).cos().sum(), (q,)),
        (lambda *args: _Larger.apply(*args).cos().sum(), (x, c, s)),
    ):
        grad = torch.func.grad(function)
        each = torch.stack([grad(*z) for z in zip(*inputs, strict=True)])
        torch.testing.assert_close(torch.func.vmap(grad)(*inputs), each)


def test_larger_of_two_products():
    x, c, s = randn(2, 3, 4, 5), randn(2, 3, 1, 1), randn(2, 1, 4, 5)
    s = (s * 2).detach().requires_grad_()
    assert gradcheck(_Larger.apply, (x, c, s))
    assert gradgradcheck(_Larger.apply, (x, c, s))


@pytest.mark.parametrize('dims', [(2, 3), (1,), (2,)])
@pytest.mark.parametrize('keep', [True, False])
def test_mean(dims, keep):
    x = randn(2, 3, 4, 5)
    torch.testing.assert_close(mean(x, *dims, keep=keep), x.mean(dims, keep))
    assert gradcheck(lambda x: mean(x, *dims, keep=keep), (x,))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_mean_of_large_numbers_in_half_precision(dtype):
    x = torch.full((1, 1, 40, 40), 3e4, dtype=dtype).requires_grad_()
    torch.testing.assert_close(mean(x, 2, 3), x[:, :, 0, 0])


def test_gradient_of_a_mean_stays_small():
    """No map is written for it: 16 MiB here."""
    x = torch.randn(1, 64, 256, 256).requires_grad_()

    def run():
        return torch.autograd.grad(mean(x, 2, 3).sum(), x)

    assert peak_mib(run, 'cpu') < 1


@pytest.mark.parametrize('dim', [1, 2, 3])
def test_maximum_takes_one_of_equals(dim):
    """With a gradient to come as without one; it goes to one place."""
    x = (
        torch.tensor([1.0, 3.0, 3.0, 2.0])
        .view(1, *(4 if i == dim else 1 for i in (1, 2, 3)))
        .requires_grad_()
    )
    assert maximum(x, dim).item() == maximum(x.detach(), dim).item() == 3
    (grad,) = torch.autograd.grad(maximum(x, dim).sum(), x)
    assert sorted(grad.flatten().tolist()) == [0, 0, 0, 1]


def test_global_maximum():
    x = randn(2, 3, 4, 5)
    torch.testing.assert_close(global_maximum(x), x.amax((2, 3)))
    torch.testing.assert_close(global_maximum(x.detach()), x.amax((2, 3)))
    assert gradcheck(global_maximum, (x,))
