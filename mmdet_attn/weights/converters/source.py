"""A converter: data about the checkpoints of one source."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import listing
from mmdet_attn.weights.infer_backbone import State

# The official name of a module and ours; None drops its tensors. The official
# name is a regular expression in which a dot is a dot.
Rules = dict[str, str | None]

BLOCK = r'layer[1-4].\d+'
CLASSIFIER: Rules = {r'fc|classifier(.\d+)?': None}


def resnet(prefix: str = '', convs: str = '123') -> Rules:
    """Rules for torchvision's names of a ResNet, which MMDetection has too.

    Args:
        prefix: What the official names start with.
        convs: The numbers of the convolutions that a block has.
    """
    block = f'{BLOCK}.(conv[{convs}]|bn[123]|downsample.[01])'
    return {f'{prefix}(conv1|bn1|{block})': r'\1'}


def in_blocks(names: Mapping[str, str], prefix: str = '') -> Rules:
    """Rules for modules of a block, from their official name there to ours.

    Args:
        names: The names.
        prefix: As of `resnet`.
    """
    return {
        f'{prefix}({BLOCK}).{old}': rf'\1.{new}' for old, new in names.items()
    }


@dataclass(frozen=True)
class Source:
    """The checkpoints of one source, and how they get the names used here.

    Attributes:
        name: What the command line calls it.
        description: Which files of whom.
        rules: What official names become, or a function of the weights that
            tells it and may refuse them.
        make_cfg: Makes the config of `backbone_cfg` from the weights.
        reshape: Makes the tensor for a new name from the official one.
        plain: Whether the networks have no attention. Then a config may have
            modules that start as the identity.
    """

    name: str
    description: str
    rules: Rules | Callable[[State], Rules]
    make_cfg: Callable[[State], dict[str, Any]]
    reshape: Callable[[str, Tensor], Tensor] = lambda name, value: value
    plain: bool = False

    def convert(self, state: State) -> dict[str, Tensor]:
        """Tensors under official names to tensors under ours.

        Raises:
            InputError: The weights are not of this source.
        """
        return {
            new: self.reshape(new, state[old])
            for old, new in self._names(state).items()
            if new
        }

    def moves(self, state: State) -> list[tuple[str, str, int]]:
        """Old name, new name and number of tensors, with blocks folded."""
        count: Counter[tuple[str, str]] = Counter()
        kept = 'the others', 'as they are'
        for old, new in self._names(state).items():
            if new is None:
                count[fold(old), 'dropped'] += 1
                continue
            moved = self.reshape(new, state[old])
            if moved.data_ptr() != state[old].data_ptr():
                count[fold(old), f'{fold(new)}, other rows'] += 1
            else:
                count[kept if new == old else (fold(old), fold(new))] += 1
        rows = sorted(count.items(), key=lambda row: row[0] == kept)
        return [(old, new, number) for (old, new), number in rows]

    def backbone_cfg(self, state: State) -> dict[str, Any]:
        """The config of the backbone that the converted weights fit.

        Or of the detector, where the weights are of a whole one.

        Args:
            state: Tensors under official names.

        Raises:
            InputError: No backbone of ours or MMDetection's takes them.
        """
        with self._named():
            return self.make_cfg(state)

    def _names(self, state: State) -> dict[str, str | None]:
        with self._named():
            rules = self.rules(state) if callable(self.rules) else self.rules
            return new_names(state, rules)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Put the name of the source in front of errors."""
        try:
            yield
        except InputError as error:
            raise InputError(f'{self.name}: {error}') from None
        except KeyError as error:
            raise InputError(
                f'{self.name}: no {error.args[0]}: the file is incomplete, '
                'or another network.'
            ) from None


def new_names(keys: Iterable[str], rules: Rules) -> dict[str, str | None]:
    """The new name of each key, None where it is dropped.

    Args:
        keys: Official names of tensors.
        rules: Exactly one has to match the module of each key.

    Raises:
        InputError: A key matches no rule or several, or two keys become one.
    """
    patterns = [
        (re.compile(pattern.replace('.', r'\.')), target)
        for pattern, target in rules.items()
    ]
    names: dict[str, str | None] = {}
    taken: set[str] = set()
    strange = []
    for key in keys:
        module, _, field = key.rpartition('.')
        found = [
            target and f'{match.expand(target)}.{field}'
            for pattern, target in patterns
            if (match := pattern.fullmatch(module))
        ]
        if len(found) != 1:
            strange.append(key)
            continue
        names[key] = name = found[0]
        if name in taken:
            raise InputError(
                f'{key} and another key both become {name}: a checkpoint of '
                'this source has only one of them.'
            )
        taken |= {name} if name else set()
    if strange:
        lines = listing('keys that its checkpoints do not have', strange)
        lines += [
            'It is another network or another source: --help lists them.'
        ]
        raise InputError('\n'.join(lines))
    if not taken:
        raise InputError(
            'no weights in the checkpoint; take the file that holds the '
            'state_dict.'
        )
    return names


def fold(key: str) -> str:
    """A key with the numbers of its stage and block as `*`."""
    return re.sub(
        r'\blayer\d+\.\d+|\bfeatures\.\d+\.conv|\bbam\d',
        lambda match: re.sub(r'\d+', '*', match[0]),
        key,
    )


def se_as_linear(name: str, value: Tensor) -> Tensor:
    """The 1x1 convolutions of an SE as linear layers."""
    fc = name.endswith(('.se.fc1.weight', '.se.fc2.weight'))
    return value.flatten(1) if fc else value
