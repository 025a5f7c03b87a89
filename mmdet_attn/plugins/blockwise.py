"""Softmax attention between positions, a block of the matrix at a time."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_attn.plugins.amp import without_autocast

# Elements of the block of weights that is at hand: 16 MiB in float32.
BLOCK = 2**22


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return (q.transpose(1, 2) @ k).softmax(2)


class _Attend(torch.autograd.Function):
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
            weights = _weights(q_block, k)
            grad_v = grad_v + grad @ weights
            grad_logits = torch._softmax_backward_data(
                grad.transpose(1, 2) @ v, weights, 2, weights.dtype
            )
            grad_q.append(k @ grad_logits.transpose(1, 2))
            grad_k = grad_k + q_block @ grad_logits
        return (
            None,
            torch.cat(grad_q, 2),
            grad_k.to(k.dtype),
            grad_v.to(v.dtype),
        )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r""":math:`\sum_j \mathrm{softmax}_j(q_i \cdot k_j)\, v_j`, unscaled.

    Memory grows with the number of positions, not with its square. Unlike
    the fused kernels of ``scaled_dot_product_attention`` it takes values that
    are wider than keys without padding these; ``torch.compile`` and
    ``torch.export`` get that function, which may then hold the whole matrix.

    Args:
        q: ``(N, d, L)``.
        k: ``(N, d, S)``.
        v: ``(N, e, S)``.

    Returns:
        ``(N, e, L)``.
    """
    if torch.compiler.is_compiling():
        q, k, v = (z.transpose(1, 2).unsqueeze(1) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return y.squeeze(1).transpose(1, 2)
    rows = max(16, BLOCK // max(1, k.shape[0] * k.shape[2]))
    with without_autocast(q):
        if rows >= q.shape[2]:
            return v @ _weights(q, k).transpose(1, 2)
        return _Attend.apply(rows, q, k, v)
