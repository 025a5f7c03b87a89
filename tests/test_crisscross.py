"""CrissCross beside mmcv's class, and what it holds in memory."""

import pytest
import torch
from mmengine.registry import MODELS
from modules import build, randomise
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mmdet_attn as ma


@pytest.fixture
def theirs():
    ops = pytest.importorskip('mmcv.ops', reason='needs mmcv')
    # Registering the name again would have been an error.
    assert MODELS.get('CrissCrossAttention') is ops.CrissCrossAttention
    return randomise(ops.CrissCrossAttention(24)).double()


@pytest.mark.parametrize('size', [(7, 5), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize('recurrence', [1, 2])
def test_equals_mmcv(theirs, size, recurrence):
    """With its weights, whose key of gamma is another one."""
    ours = ma.CrissCross(24, recurrence=recurrence).double()
    keys = ours.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 24, *size, dtype=torch.double)
    expected = x
    for _ in range(recurrence):
        expected = theirs(expected)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-12)
    # Saved under the authors' key, with their shape.
    assert ours.state_dict().keys() == keys
    assert ours.gamma.shape == (1,)


def test_loads_the_key_of_mmcv_inside_a_network(theirs):
    state = {f'head.cca.{k}': v for k, v in theirs.state_dict().items()}
    network = torch.nn.ModuleDict(
        {'head': torch.nn.ModuleDict({'cca': ma.CrissCross(24)})}
    )
    network.load_state_dict(state)
    assert network['head']['cca'].gamma == theirs.gamma.scale.float()
    assert 'head.cca.gamma.scale' in state


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize('size', [(24, 40), (40, 24), (32, 32)])
def test_weights_of_a_row_and_a_column_only(size):
    """Forward and backward: H + W - 1 for each position, not H W."""
    module = randomise(build('CrissCross', 8))
    height, width = size
    x = torch.randn(2, 8, height, width, requires_grad=True)
    with Largest() as largest:
        module(x).square().sum().backward()
    weights = x.numel() // 8 * (height + width - 1)
    assert x.numel() < largest.elements <= weights


def test_logits_are_exact_in_half_precision():
    """bfloat16 has three digits only, and softmax takes their exponential."""
    module = randomise(build('CrissCross'))
    x = torch.randn(1, 32, 9, 8)
    with torch.autocast('cpu', torch.bfloat16):
        q, k, v = (
            conv(x)
            for conv in (module.query_conv, module.key_conv, module.value_conv)
        )
        found = module(x)
    expected = x + module.gamma * module._attend(
        q.float(), k.float(), v.float()
    )
    assert q.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)
