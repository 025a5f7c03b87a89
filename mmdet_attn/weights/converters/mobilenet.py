"""MobileNetV2 under the numbers of official checkpoints and under ours."""

import re
from collections.abc import Mapping

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.rename import CLASSIFIER, NORM, Rules

# features.1 to features.17.
PLACES = [
    f'layer{stage}.{block}'
    for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1), 1)
    for block in range(count)
]
FIRST, EXPANDING = r'layer1\.0', r'layer[2-7]\.\d'


def alias(key: str) -> str:
    """`features.N.conv` as the stage and block that it is here."""
    match = re.match(r'features\.(\d+)\.conv\.', key)
    if match and 1 <= int(match[1]) <= len(PLACES):
        return f'{PLACES[int(match[1]) - 1]}.{key[match.end() :]}'
    return key


def conv_norm(conv: str, norm: str, place: str, name: str) -> Rules:
    """Rules for a convolution and its norm, here one `ConvModule`."""
    place = f'({place})' if place else '()'
    return {
        rf'{place}{conv}\.weight': rf'\1{name}.conv.weight',
        rf'{place}{norm}\.{NORM}': rf'\1{name}.bn.\2',
    }


def block_rules(place: str, *parts: tuple[str, str, str]) -> Rules:
    """Rules for the convolutions of a block: conv, norm, name here."""
    rules: dict[str, str | None] = {}
    for conv, norm, name in parts:
        rules |= conv_norm(
            re.escape(conv), re.escape(norm), rf'{place}\.', name
        )
    return rules


def network_rules(last: str) -> Rules:
    """Rules for the stem, the last 1x1 convolution and the classifier."""
    return {
        **conv_norm(r'features\.0\.0', r'features\.0\.1', '', 'conv1'),
        **conv_norm(rf'{last}\.0', rf'{last}\.1', '', 'conv2'),
        **CLASSIFIER,
    }


def check_blocks(state: Mapping[str, Tensor]) -> None:
    """Refuse what lacks a block of MobileNetV2."""
    found = {'.'.join(alias(key).split('.')[:2]) for key in state}
    missing = [n for n, place in enumerate(PLACES, 1) if place not in found]
    if missing:
        raise InputError(
            f'no features.{missing[0]}, where MobileNetV2 has features.1 to '
            f'features.{len(PLACES)}: the file is incomplete, or another '
            'network.'
        )
