"""Rename the keys of a foreign checkpoint by rules that must all fit."""

import re
from collections import Counter
from collections.abc import Callable, Mapping

from torch import Tensor

from mmdet_attn.errors import InputError

# A pattern of whole keys and what it becomes; None drops the tensor.
Rules = dict[str, str | None]

NORM = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
CLASSIFIER: Rules = {r'(fc|classifier(\.\d+)?)\.(weight|bias)': None}
STEM: Rules = {r'conv1\.weight': r'\g<0>', rf'bn1\.{NORM}': r'\g<0>'}
BLOCK = r'layer[1-4]\.\d+'
BLOCKS: Rules = {
    rf'{BLOCK}\.conv[123]\.weight': r'\g<0>',
    rf'{BLOCK}\.bn[123]\.{NORM}': r'\g<0>',
    rf'{BLOCK}\.downsample\.0\.weight': r'\g<0>',
    rf'{BLOCK}\.downsample\.1\.{NORM}': r'\g<0>',
}
# Torchvision's names, which are those of MMDetection.
RESNET: Rules = {**STEM, **BLOCKS, **CLASSIFIER}
# The same without the second convolution of a block.
RESNET_WITHOUT_CONV2: Rules = {
    **{k: v for k, v in RESNET.items() if 'conv[123]' not in k},
    rf'{BLOCK}\.conv[13]\.weight': r'\g<0>',
}
# The same without the classifier, in a file of a detector or classifier.
IN_BACKBONE: Rules = {
    rf'backbone\.({pattern})': r'\1' for pattern in (*STEM, *BLOCKS)
}


def se_as_linear(name: str, value: Tensor) -> Tensor:
    """The 1x1 convolutions of an SE as linear layers."""
    fc = name.endswith(('.se.fc1.weight', '.se.fc2.weight'))
    return value.flatten(1) if fc else value


def fold(key: str) -> str:
    """A key with the numbers of its stage and block as `*`."""
    key = re.sub(r'\blayer\d+\.\d+', 'layer*.*', key)
    return re.sub(r'\bfeatures\.\d+\.conv|\bbam\d', _star, key)


def _star(match: re.Match) -> str:
    return re.sub(r'\d+', '*', match[0])


def renamed(
    state: Mapping[str, Tensor],
    rules: Rules,
    alias: Callable[[str], str] = str,
) -> dict[str, Tensor]:
    """The tensors under their new names, without those that are dropped.

    Args:
        state: Tensors under their official names.
        rules: Exactly one has to match each key, as a whole.
        alias: What the rules see of a key.

    Raises:
        InputError: A key matches no rule or several, or two keys become one.
    """
    result: dict[str, Tensor] = {}
    strange = []
    for key, value in state.items():
        seen = alias(key)
        found = [
            (match, target)
            for pattern, target in rules.items()
            if (match := re.fullmatch(pattern, seen))
        ]
        if len(found) != 1:
            strange.append(key)
            continue
        match, target = found[0]
        if target is None:
            continue
        name = match.expand(target)
        if name in result:
            raise InputError(
                f'{key} and another key both become {name}: a checkpoint of '
                'this source has only one of them.'
            )
        result[name] = value
    if strange:
        raise InputError(_unknown(strange))
    if not result:
        raise InputError(
            'no weights in the checkpoint; take the file that holds the '
            'state_dict.'
        )
    return result


def _unknown(keys: list[str]) -> str:
    count = Counter(map(fold, keys))
    lines = [f'  {name} ({number})' for name, number in count.most_common(12)]
    if len(count) > len(lines):
        lines.append(f'  and {len(count) - len(lines)} more')
    return '\n'.join(
        [
            f'{len(keys)} keys that its checkpoints do not have:',
            *lines,
            'It is another network or another source: --help lists them.',
        ]
    )
