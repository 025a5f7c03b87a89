"""Which tensor of a checkpoint went where."""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from mmdet_attn.weights.converters.rename import fold


def moves(
    state: Mapping[str, Tensor], converted: Mapping[str, Tensor]
) -> list[tuple[str, str, int]]:
    """Old name, new name and number of tensors, with blocks folded.

    A tensor is found by its storage, which reshaping keeps. Where rows were
    cut or moved, it is found by its name, behind a new prefix.
    """
    storage = {_storage(value): name for name, value in converted.items()}
    count: Counter[tuple[str, str]] = Counter()
    used = set()
    for key, value in state.items():
        name = storage.get(_storage(value))
        note = ''
        if name is None:
            name = next(
                (n for n in converted if f'.{n}'.endswith(f'.{key}')), None
            )
            note = ', other rows'
        if name is not None:
            used.add(name)
        if name == key and not note:
            count['the others', 'as they are'] += 1
        else:
            target = 'dropped' if name is None else fold(name) + note
            count[fold(key), target] += 1
    for name in converted:
        if name not in used:
            count['computed', fold(name)] += 1
    rows = [(old, new, number) for (old, new), number in count.items()]
    return sorted(rows, key=lambda row: row[1] == 'as they are')


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
