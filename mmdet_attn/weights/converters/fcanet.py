"""FcaNet's own ImageNet networks."""

import re

import torch
from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import FCA
from mmdet_attn.weights.converters.rename import BLOCK, RESNET
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import (
    State,
    last_dim,
    reduction,
    resnet_with,
)

BUFFER = r'att\.dct_layer\.weight'


def _check_frequencies(state: State) -> None:
    """Refuse a DCT that is not the one that our module computes."""
    bases: dict[tuple[int, ...], Tensor] = {}
    for key, value in state.items():
        if not re.fullmatch(rf'{BLOCK}\.{BUFFER}', key):
            continue
        shape = tuple(value.shape)
        if shape not in bases:
            bases[shape] = _basis(key, shape)
        basis = bases[shape]
        if not torch.allclose(value.float(), basis, rtol=1e-3, atol=1e-5):
            raise InputError(
                f'{key} is not the DCT of frequencies top16, with which this '
                'module computes.'
            )


def _basis(key: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f'{key} must be of shape (C, P, P), got {shape}.')
    channels, size, _ = shape
    module = FCA(channels, dct_size=size)
    maps = torch.einsum('fh,fw->fhw', module.u, module.v)
    return maps.repeat_interleave(channels // len(maps), 0)


FCANET = Source(
    'fcanet',
    'ImageNet FcaNets of cfzd/FcaNet',
    {
        **RESNET,
        rf'({BLOCK})\.att\.fc\.0\.weight': r'\1.fca.fc1.weight',
        rf'({BLOCK})\.att\.fc\.2\.weight': r'\1.fca.fc2.weight',
        # Our module computes it from its arguments.
        rf'{BLOCK}\.{BUFFER}': None,
    },
    resnet_with(
        'mmdet_attn.FCA',
        dict(
            dct_size=(BUFFER, last_dim),
            reduction=(r'att\.fc\.0\.weight', reduction),
        ),
    ),
    check=_check_frequencies,
)
