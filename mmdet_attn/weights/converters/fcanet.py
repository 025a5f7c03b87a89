"""FcaNet's own ImageNet networks."""

import re
from typing import Any

import torch
from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import FCA
from mmdet_attn.weights.converters.rules import BLOCK, RESNET, renamed
from mmdet_attn.weights.converters.stages import (
    State,
    depth_of,
    last_position,
    plugins_by_stage,
    stage_values,
)

DESCRIPTION = 'ImageNet FcaNets of cfzd/FcaNet'
BUFFER = r'att\.dct_layer\.weight'
RULES = {
    **RESNET,
    rf'({BLOCK})\.att\.fc\.0\.weight': r'\1.fca.fc1.weight',
    rf'({BLOCK})\.att\.fc\.2\.weight': r'\1.fca.fc2.weight',
    # Our module computes it from its arguments.
    rf'{BLOCK}\.{BUFFER}': None,
}


def convert(state: State) -> dict[str, Tensor]:
    """Official keys to ours.

    Raises:
        InputError: Also, if a DCT is not the one that our module computes.
    """
    bases: dict[tuple[int, ...], Tensor] = {}
    for key, value in state.items():
        if re.fullmatch(rf'{BLOCK}\.{BUFFER}', key):
            shape = tuple(value.shape)
            if shape not in bases:
                bases[shape] = _basis(key, shape)
            if not torch.allclose(
                value.float(), bases[shape], rtol=1e-3, atol=1e-5
            ):
                raise InputError(
                    f'fcanet: {key} is not the DCT of frequencies top16, '
                    'with which this module computes.'
                )
    return renamed('fcanet', state, RULES)


def _basis(key: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(
            f'fcanet: {key} must be of shape (C, P, P), got {shape}.'
        )
    channels, size, _ = shape
    module = FCA(channels, dct_size=size)
    maps = torch.einsum('fh,fw->fhw', module.u, module.v)
    return maps.repeat_interleave(channels // len(maps), 0)


def host(state: State) -> dict[str, Any]:
    """The backbone that the weights fit."""
    depth = depth_of('fcanet', state)
    dct = stage_values('fcanet', state, BUFFER, lambda value: value.shape[-1])
    reductions = stage_values(
        'fcanet',
        state,
        r'att\.fc\.0\.weight',
        lambda value: value.shape[1] // value.shape[0],
    )
    plain = 'mmdet_attn.AttentionResNet' if depth < 50 else 'mmdet.ResNet'
    return dict(
        type=plain,
        depth=depth,
        plugins=plugins_by_stage(
            list(zip(dct, reductions, strict=True)),
            lambda pair: dict(
                type='mmdet_attn.FCA', dct_size=pair[0], reduction=pair[1]
            ),
            last_position(depth),
        ),
    )
