"""Mutated checkpoints are refused by name, or they have their old values."""

import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from budget import fuzz
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer

from mmdet_attn.errors import InputError
from mmdet_attn.weights.load import read_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / 'faults'))

from lab import value_of


@cache
def good() -> tuple[Path, bytes, str]:
    """A small file with all that mmengine stores: name, bytes, values."""
    file = Path(tempfile.mkdtemp(prefix='fuzz_')) / 'fuzzed.pth'
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 3, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2, 4, 4)).sum().backward()
    optimizer.step()
    torch.save(
        {
            'meta': {'epoch': 1, 'iter': 3, 'cfg': 'x = 1\n' * 20},
            'state_dict': layer.state_dict(),
            'optimizer': optimizer.state_dict(),
            'message_hub': {
                'log_scalars': {'loss': HistoryBuffer([1.0, 2.0], [1, 1])},
                'runtime_info': {'seed': np.int64(3)},
            },
        },
        file,
    )
    return file, file.read_bytes(), value_of(read_checkpoint(str(file)))


PLACES = st.integers(0, 2**20)
LENGTHS = st.sampled_from([1, 2, 8, 64, 512])
MUTATIONS = st.one_of(
    st.tuples(st.just('flip'), PLACES, st.integers(0, 7)),
    st.tuples(st.just('write'), PLACES, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just('zero'), PLACES, LENGTHS),
    st.tuples(st.just('cut'), PLACES, LENGTHS),
    st.tuples(st.just('double'), PLACES, LENGTHS),
    st.tuples(st.just('end'), PLACES, st.none()),
)


def mutated(data: bytearray, act: str, place: int, value) -> bytearray:
    place %= max(1, len(data))
    if act == 'flip' and data:
        data[place] ^= 1 << value
    elif act == 'write':
        data[place : place + len(value)] = value
    elif act == 'zero':
        size = len(data[place : place + value])
        data[place : place + size] = bytes(size)
    elif act == 'cut':
        del data[place : place + value]
    elif act == 'double':
        data[place:place] = data[place : place + value]
    elif act == 'end':
        del data[place:]
    return data


@fuzz(st.lists(MUTATIONS, min_size=1, max_size=3))
def test_checkpoints(mutations):
    file, whole, values = good()
    data = bytearray(whole)
    for mutation in mutations:
        data = mutated(data, *mutation)
    file.write_bytes(data)
    try:
        read = read_checkpoint(str(file))
    except InputError as error:
        message = str(error)
    else:
        message = f'{file}'
        assert value_of(read) == values
    assert str(file) in message
