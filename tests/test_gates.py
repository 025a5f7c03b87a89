"""The recorder of gates: true factors, a network that does not notice."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from modules import build, every_gate, every_switched, randomise, takes_alpha
from torch import nn

from mmdet_attn import ECA, Gate, PSAConv2d
from mmdet_attn.errors import InputError
from mmdet_attn.look.gates import record_additions, record_gates, summarise

SHAPE = (2, 32, 9, 12)


def ready(name, **kwargs):
    return randomise(build(name, **kwargs)).eval()


def run(module, x):
    with torch.no_grad():
        return module(x)


@every_gate
def test_recorded_factor_is_the_one_of_the_gate(name):
    extra = {'identity_init': True} if takes_alpha(name) else {}
    module, x = ready(name, **extra), torch.randn(SHAPE)
    plain = run(module, x)
    with record_gates(module) as found:
        assert torch.equal(run(module, x), plain)
    ((key, (factor,)),) = found.items()
    assert key == ''
    assert torch.equal(factor, run(module.factor, x))


@pytest.mark.parametrize('name', ['CBAM', 'GAM'])
def test_two_gates_in_order(name):
    module, x = ready(name), torch.randn(SHAPE)
    with record_gates(module) as found:
        y = run(module, x)
    assert list(found) == ['channel', 'spatial']
    (channel,), (spatial,) = found.values()
    torch.testing.assert_close(y, x * channel * spatial)


def test_gate_inside_a_unit():
    module, x = ready('LSKUnit'), torch.randn(SHAPE)
    with record_gates(module) as found:
        run(module, x)
    ((name, (g,)),) = found.items()
    inside = run(lambda x: nn.functional.gelu(module.proj_1(x)), x)
    expected = run(module.get_submodule(name).gate, inside)
    torch.testing.assert_close(g, expected)


@pytest.mark.parametrize(
    'name', ['GC', 'NonLocal', 'A2', 'PAM', 'CAM', 'CrissCross', 'GCT']
)
def test_modules_that_are_no_gates_have_no_map(name):
    module, x = ready(name), torch.randn(SHAPE)
    with record_gates(module) as found:
        assert torch.equal(run(module, x), run(module, x))
    assert found == {}


@pytest.mark.parametrize('name', ['GC', 'NonLocal', 'GCT'])
def test_what_other_modules_add_is_recorded(name):
    module, x = ready(name), torch.randn(SHAPE)
    with record_additions({'block': module}) as found:
        y = run(module, x)
    run(module, x)
    ((key, (added,)),) = found.items()
    assert key == 'block'
    torch.testing.assert_close(x + added * x.square().mean().sqrt(), y)


def test_gate_that_is_only_asked_is_not_recorded():
    """PSA's inner SE sees its branches as a batch, then comes a softmax."""
    module = PSAConv2d(32, 64).eval()
    x = torch.randn(SHAPE)
    plain = run(module, x)
    with record_gates(module) as found:
        assert torch.equal(run(module, x), plain)
    assert found == {}


class Vignette(Gate):
    """A new module, with a gate inside."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.inner = ECA(in_channels)

    def gate(self, x):
        return self.inner(x).sigmoid()


def test_new_module_is_found():
    """Also the gate inside it, once for each run of the network."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Vignette(4)).eval()
    with record_gates(network) as found:
        run(network, torch.randn(1, 3, 5, 6))
    assert {name: len(maps) for name, maps in found.items()} == {
        '1': 1,
        '1.inner': 1,
    }
    assert found['1'][0].shape == (1, 4, 5, 6)


class Constant(Gate):
    """A map that a later change of the network would reach."""

    def __init__(self):
        super().__init__(4)
        self.weight = nn.Parameter(torch.ones(1, 4, 1, 1))

    def gate(self, x):
        return self.weight


def test_each_run_is_kept_as_a_copy():
    module, x = Constant().eval(), torch.randn(1, 4, 5, 6)
    with record_gates(module) as found:
        run(module, x)
        module.weight.data.zero_()
        run(module, x)
    assert [g.unique().tolist() for g in found['']] == [[1], [0]]


@every_switched
def test_recording_ends(name):
    """Also after an error, and within another recording."""
    module, x = ready(name, identity_init=True), torch.randn(SHAPE)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    plain = run(module, x)
    with suppress(RuntimeError), record_gates(module) as outer:
        with record_gates(module) as inner:
            run(module, x)
        run(module, x)
        raise RuntimeError
    assert torch.equal(run(module, x), plain)
    assert outer.keys() == inner.keys()
    assert [len(runs) for runs in outer.values()] == [2] * len(outer)
    assert [len(runs) for runs in inner.values()] == [1] * len(inner)
    after = module.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_map_asked_for_by_hand_is_not_taken_for_a_run():
    module, x = ready('BAM'), torch.randn(SHAPE)
    with record_gates(module) as found:
        run(module.gate, torch.randn(SHAPE))
        run(module, x)
    (g,) = found['']
    assert torch.equal(g, run(module.gate, x))


@pytest.mark.parametrize(
    ('network', 'name'),
    [(nn.Sequential(nn.Conv2d(8, 8, 1), ECA(8)), '1'), (ECA(8), 'ECA')],
)
def test_train_mode_is_refused(network, name):
    with (
        pytest.raises(InputError, match=f'^{name} is in train mode'),
        record_gates(network),
    ):
        pass


@pytest.mark.parametrize(
    ('shape', 'channels', 'plane'),
    [
        ((1, 8, 1, 1), True, False),
        ((1, 1, 5, 6), False, True),
        ((1, 8, 5, 6), True, True),
        ((1, 8, 5, 1), True, True),
        ((1, 1, 1, 1), True, False),
        ((8, 1, 1), True, False),
        ((5, 6), False, True),
        ((3, 8, 5, 6), True, True),
    ],
)
def test_summary_goes_by_shape(shape, channels, plane):
    g = torch.randn(shape)
    x = torch.randn(shape[0] if len(shape) == 4 else 1, 8, 5, 6)
    seen = summarise(x, g)
    first = (g if len(shape) < 4 else g[0]).numpy()
    first = first.reshape((1,) * (3 - first.ndim) + first.shape)
    assert (seen.shape, seen.size) == (first.shape, (5, 6))
    assert seen.batch == len(x)
    assert (seen.low, seen.high) == (first.min(), first.max())
    assert seen.mean == pytest.approx(first.mean(), abs=1e-6)
    for found, wanted, mean in (
        (seen.channels, channels, first.mean((1, 2))),
        (seen.plane, plane, first.mean(0)),
    ):
        assert (found is not None) == wanted
        if wanted:
            np.testing.assert_allclose(found, mean, atol=1e-6)


def test_summary_without_regions():
    seen = summarise(torch.zeros(0, 8, 7, 7), torch.zeros(0, 8, 1, 1))
    assert seen.batch == 0
    assert seen.channels is seen.plane is None
