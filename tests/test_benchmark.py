"""The benchmark: what it compares is equal, and its figures are figures."""

import json
import re
from time import sleep

import pytest
import torch
from conftest import run_here
from modules import randomise

from mmdet_attn import __all__ as names
from mmdet_attn.cost import cases as cost_cases
from mmdet_attn.cost.cases import (
    STAGES,
    Case,
    build_module,
    module_cases,
    network_cases,
)
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.cost.timing import Setup, peak_mib, time_pair

TOOL = 'tools/analysis_tools/benchmark.py'
NOT_MODULES = {
    'Attention',
    'AttentionNeck',
    'Gate',
    'SimAMConv2d',
    'insert',
}


def test_every_module_has_a_formula():
    assert set(names) - NOT_MODULES == set(FORMULAS)


@pytest.mark.parametrize('name', FORMULAS)
def test_formula_equals_module(name):
    """Values and all gradients, with the module's own weights."""
    torch.manual_seed(0)
    module = randomise(build_module(name, 128)).double()
    grads = []
    for function in (module, lambda x: FORMULAS[name](module, x)):
        torch.manual_seed(1)
        x = torch.randn(3, 128, 14, 10, dtype=torch.double).requires_grad_()
        y = function(x)
        leaves = [x, *module.parameters()]
        grads.append((y, *torch.autograd.grad(y, leaves, y.cos())))
    assert grads[0][0].std() > 1e-3
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-8)


def test_pair_tells_slow_from_fast():
    calls = []

    def work(name, count):
        calls.append(name)
        x = torch.ones(300, 300)
        for _ in range(count):
            x = x @ x * 1e-3

    found = time_pair(lambda: work('a', 60), lambda: work('b', 6), rounds=5)
    assert 3 < found['ratio'] < 30
    assert found['low'] <= found['ratio'] <= found['high']
    assert found['rounds'] == 5
    assert found['ms'] > found['other_ms'] > 0
    turns = [c for i, c in enumerate(calls) if not i or calls[i - 1] != c]
    assert turns == ['a', 'b'] * (len(turns) // 2)
    assert len(turns) >= 12


def test_times_are_milliseconds():
    found = time_pair(lambda: sleep(0.02), lambda: sleep(0.01), rounds=3)
    assert 20 <= found['ms'] < 1000
    assert 10 <= found['other_ms'] < 500


def test_peak_memory():
    """Two maps of 1 MiB at a time, three where both results are kept."""
    x = torch.ones(2**18)
    assert 2 <= peak_mib(lambda: (x + 1) + 1, 'cpu') < 2.01
    assert 3 <= peak_mib(lambda: (x + 1) + (x + 2), 'cpu') < 3.01


def test_cases_are_pairs_that_agree():
    setup = Setup(backward=True, channels_last=True)
    cases = list(module_cases(['CBAM'], (64, 96), 1, setup))
    assert len(cases) == len(STAGES)
    assert cases[1].size == '2: 1 x 512 x 8 x 12'
    ours, other = cases[0].work.step(), cases[0].other.step()
    # x and 7 parameters: two linear layers, a convolution and a norm.
    assert len(ours) == len(other) == 1 + 4 + 1 + 2
    for a, b in zip(ours, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_whole_matrix_that_does_not_fit_is_left_out():
    cases = module_cases(['PAM'], (4000, 4000), 2, Setup(backward=True))
    assert 'does not fit' in next(cases)


def test_disagreement_is_refused(monkeypatch):
    monkeypatch.setitem(FORMULAS, 'SE', lambda module, x: x)
    with pytest.raises(ValueError, match=r'SE at .*disagrees'):
        next(iter(module_cases(['SE'], (64, 64), 1, Setup())))


def test_table_json_and_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(cost_cases, 'STAGES', STAGES[:1])
    files = tmp_path / 'speed.json', tmp_path / 'speed.png'
    code, output = run_here(
        *(TOOL, '--modules', 'SE', 'SEVar1', '--sizes', '32x32', '--rounds'),
        *('3', '--backward', '--json', files[0], '--plot', files[1]),
    )
    assert code == 0, output
    assert 'geometric mean' in output
    content = json.loads(files[0].read_text())
    assert content['torch'] == torch.__version__
    assert content['arguments']['modules'] == ['SE', 'SEVar1']
    rows = content['rows']
    assert [(row['name'], row['mode']) for row in rows] == [
        (name, mode)
        for mode in ('forward', 'forward+backward')
        for name in ('SE', 'SEVar1')
    ]
    for row in rows:
        assert 0 < row['low'] <= row['ratio'] <= row['high'] < 100
        assert bool(row['params']) == (row['name'] == 'SE')
    assert files[1].read_bytes().startswith(b'\x89PNG')


def test_counts_without_times(tmp_path):
    """They need no second run, and fit into 100 columns."""
    files = tmp_path / 'counts.json', tmp_path / 'counts.png'
    code, output = run_here(
        *(TOOL, '--modules', 'CBAM', '--sizes', '64x64', '--rounds', '0'),
        *('--batch', '1', '--backward', '--json', files[0]),
        *('--plot', files[1]),
    )
    assert code == 0, output
    table = output[output.index(' modules against formula') :]
    assert max(map(len, table.splitlines())) <= 100
    rows = json.loads(files[0].read_text())['rows']
    assert len(rows) == 2 * len(STAGES)
    for row in rows:
        assert 'ms' not in row
        assert row['moved'] > row['params'] * 4
        assert row['kernels'] > 10
        kept = row['kept'], row['other_kept']
        assert all(kept) if 'backward' in row['mode'] else not any(kept)
        ratio = f'{row["moved"] / row["other_moved"]:.2f}'
        assert re.search(rf'CBAM .* {re.escape(ratio)} ', table)
    assert files[1].read_bytes().startswith(b'\x89PNG')


@pytest.mark.slow
def test_backbones(tmp_path):
    file = tmp_path / 'speed.json'
    code, output = run_here(
        *(TOOL, '--what', 'backbones', '--modules', 'ECA', '--sizes'),
        *('32x64', '--rounds', '3', '--backward', '--json', file),
    )
    assert code == 0, output
    forward, training = json.loads(file.read_text())['rows']
    # 80 weights of the paper and an alpha in each of 16 blocks.
    assert forward['params'] == training['params'] == 80 + 16
    assert training['ms'] > forward['ms']


def test_interrupt_keeps_what_was_measured(tmp_path, monkeypatch):
    calls, measure = [], Case.measure

    def interrupted(case, setup, rounds):
        calls.append(case.size)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(case, setup, rounds)

    monkeypatch.setattr(Case, 'measure', interrupted)
    file = tmp_path / 'speed.json'
    code, output = run_here(
        *(TOOL, '--modules', 'SEVar1', '--sizes', '32x32', '--json', file),
        *('--rounds', '3'),
    )
    assert code == 0
    assert 'interrupted: this is what was measured' in output
    rows = json.loads(file.read_text())['rows']
    assert [row['size'] for row in rows] == calls[:2]


@pytest.mark.parametrize('part', ['backbones', 'detectors'])
def test_fused_against_itself(part):
    """The 53 norms of ResNet-50 are gone, and no gate."""
    plain, eca = network_cases(['ECA'], part, (64, 96), 1, Setup(), fused=True)
    assert plain.name == 'plain'
    # A weight of each norm; its bias is now that of the convolution.
    channels = 26_560
    assert plain.params == eca.params == -channels
    maps = 64 * 32 * 48
    for blocks, (width, stride) in zip((3, 4, 6, 3), STAGES, strict=True):
        area = 64 * 96 // stride**2
        maps += (blocks * (width // 4 * 2 + width) + width) * area
        if stride > 4:  # the first convolution of a stage, before the stride
            maps += 3 * width // 4 * area
    for case in plain, eca:
        ours, other = case.work.counts, case.other.counts
        assert other['kernels'] - ours['kernels'] == 53
        # A norm reads a map and four numbers a channel, and writes a map.
        saved = 4 * (2 * maps + (4 - 1) * channels)
        assert other['moved'] - ours['moved'] == saved
    added = eca.work.counts['kernels'] - plain.work.counts['kernels']
    assert added >= 16
    output, expected = (work.step() for work in (eca.work, eca.other))
    if part == 'backbones':
        for one, other in zip(output, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('backward', [False, True])
def test_detectors(backward):
    setup = Setup(backward=backward)
    (case,) = network_cases(['ECA'], 'detectors', (32, 64), 1, setup)
    assert case.params == 80 + 16
    found = case.work.step()
    if backward:
        assert sum(g is not None for g in found) > 100
    else:
        assert found[0].pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--modules', 'EAC'], 'there is no EAC; there are A2, BAM'),
        (['--fuse'], 'got --what modules: give --what backbones or detect'),
        (
            ['--what', 'backbones', '--fuse', '--backward'],
            'got --what backbones --backward: give',
        ),
        (['--sizes', '800'], '--sizes must be HxW of at least 32x32, got 800'),
        (['--rounds', '2'], '--rounds must be at least 3, or 0, got 2'),
        (['--batch', '0'], '--batch must be at least 1, got 0'),
        (['--device', 'tpu'], '--device tpu cannot be used here'),
        (['--json', 'no/such/a.json'], 'no/such/a.json: there is no such'),
        (['--plot', 'a.pdf'], '--plot must end in .png, got a.pdf'),
    ],
)
def test_bad_arguments(arguments, message):
    code, output = run_here(TOOL, *arguments)
    assert code == 2
    assert message in output
