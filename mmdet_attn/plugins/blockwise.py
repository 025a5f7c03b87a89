"""Softmax attention between positions, without the matrix of all pairs."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_attn.plugins.amp import without_autocast

# Elements of the block of weights that is in memory: 16 MiB in float32.
BLOCK = 2**22


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return (q.transpose(1, 2) @ k).softmax(2)


def _block_gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    weights = _weights(q, k)
    # The gradient of a softmax: w g - w sum(w g).
    product = weights * (grad.transpose(1, 2) @ v)
    total = product.sum(2, keepdim=True)
    grad_logits = torch.addcmul(product, weights, total, value=-1)
    return k @ grad_logits.transpose(1, 2), q @ grad_logits, grad @ weights


class _Blockwise(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(rows: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [v @ _weights(b, k).transpose(1, 2) for b in q.split(rows, 2)]
        return torch.cat(parts, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.rows = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        # Sums over many blocks, too many for half precision.
        wide = torch.promote_types(q.dtype, torch.float32)
        grad_q, grad_k = [], k.new_zeros(k.shape, dtype=wide)
        grad_v = v.new_zeros(v.shape, dtype=wide)
        blocks = q.split(ctx.rows, 2), grads[0].split(ctx.rows, 2)
        for q_block, grad in zip(*blocks, strict=True):
            parts = _block_gradients(q_block, k, v, grad)
            grad_q.append(parts[0])
            grad_k, grad_v = grad_k + parts[1], grad_v + parts[2]
        return (
            None,
            torch.cat(grad_q, 2),
            grad_k.to(k.dtype),
            grad_v.to(v.dtype),
        )


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    # The fused kernels need contiguous vectors.
    q, k, v = (z.transpose(1, 2).contiguous().unsqueeze(1) for z in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return y.squeeze(1).transpose(1, 2)


def blockwise_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float = 1.0
) -> Tensor:
    r"""$\sum_j \mathrm{softmax}_j(s\, q_i \cdot k_j)\, v_j$ for all $i$.

    Memory grows with the number of positions, not with its square. Keys and
    values of one width take the fused kernels of
    `scaled_dot_product_attention`. Values of another width would make it
    compute the whole matrix, so a block of it is computed at a time. Under
    `torch.compile` and `torch.export` they take that function, too.

    Args:
        q: The queries, `(N, d, L)`.
        k: The keys, `(N, d, S)`.
        v: The values, `(N, e, S)`.
        scale: The factor $s$.

    Returns:
        The weighted sums, `(N, e, L)`.
    """
    if torch.compiler.is_compiling() or v.shape[1] == k.shape[1]:
        return _fused(q, k, v, scale)
    rows = max(16, BLOCK // max(1, k.shape[0] * k.shape[2]))
    with without_autocast(q):
        q = q * scale
        if rows >= q.shape[2]:
            return v @ _weights(q, k).transpose(1, 2)
        return _Blockwise.apply(rows, q, k, v)
