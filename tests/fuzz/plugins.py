"""Any argument of a module works or is refused by its name."""

import inspect
import re

import torch
from budget import fuzz
from hypothesis import strategies as st

import mmdet_attn
from mmdet_attn.plugins import __all__ as names

CLASSES = [name for name in names if name not in ('Attention', 'Gate')]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.floats(-2, 70),
    st.sampled_from([float('nan'), float('inf'), '', 'BN', b'x', {}]),
    st.text(max_size=4),
    st.lists(st.integers(-1, 9), max_size=5),
    st.lists(st.integers(-1, 9), max_size=5).map(tuple),
)
CONVS = ('PSAConv2d', 'SKConv2d', 'SimAMConv2d')
# What checks an argument for another.
PARTS = {'PSAConv2d': 'SE', 'SimAMConv2d': 'SimAM'}
# Words that some argument takes, for any argument.
WORDS = st.sampled_from(
    [
        *('add', 'mul', 'max', 'avg', 'att', 'lp', 'lse', 'low16', 'top1'),
        *('top16', 'bot8', 'theta_minus', 'theta_plus', 'channel'),
        *('position', 'gaussian', 'dot_product', 'concatenation', 'l1', 'l2'),
    ]
)
NORMS = st.one_of(
    st.none(),
    st.builds(
        lambda kind, more: dict(type=kind, **more),
        st.sampled_from(['BN', 'GN', 'SyncBN', 'LN', '', None]),
        st.dictionaries(
            st.sampled_from(['num_groups', 'requires_grad', 'eps', 'foo']),
            st.one_of(st.integers(-1, 4), st.booleans(), st.text(max_size=2)),
            max_size=2,
        ),
    ),
)


@st.composite
def calls(draw):
    """A class and arguments, most of them of the right type."""
    name = draw(st.sampled_from(CLASSES))
    parameters = dict(inspect.signature(getattr(mmdet_attn, name)).parameters)
    parameters.pop('args', None), parameters.pop('kwargs', None)
    channels = draw(st.sampled_from([1, 2, 3, 8, 16, 24, 32, 64]))
    given = {'in_channels': channels}
    if name in CONVS:
        given['out_channels'] = draw(st.sampled_from([1, 4, 16, 32, 64]))
        given['kernel_size'] = 3
    if name == 'LSKA':
        given['kernel_size'] = draw(st.sampled_from([7, 11, 23, 53]) | ODD)
    free = [key for key in parameters if key not in given]
    some = st.lists(st.sampled_from(free), max_size=3, unique=True)
    for key in draw(some) if free else ():
        default = parameters[key].default
        if draw(st.booleans()):
            like: st.SearchStrategy = ODD
        elif 'norm' in key:
            like = NORMS
        elif isinstance(default, bool):
            like = st.booleans()
        elif isinstance(default, int):
            like = st.integers(1, 33)
        elif isinstance(default, float):
            like = st.floats(1e-6, 10)
        elif isinstance(default, str):
            like = WORDS
        else:
            like = st.one_of(
                st.lists(WORDS, max_size=3).map(tuple),
                st.lists(st.integers(1, 9), max_size=4).map(tuple),
            )
        given[key] = draw(like)
    if draw(st.integers(0, 9)) == 0 and name != 'SimAMConv2d':
        given['in_channels'] = draw(ODD)
    return name, given


def assert_named(error: Exception, name: str) -> None:
    """A message has the class and an argument; batch norm's has sizes."""
    text = str(error)
    keys = '|'.join(inspect.signature(getattr(mmdet_attn, name)).parameters)
    owners = f'{name}|{PARTS.get(name, name)}'
    known = re.search(rf'^({owners}): .*\b({keys})\b', text)
    assert known or text.startswith('BN: '), repr(error)


@fuzz(calls(), st.booleans())
def test_plugins(call, training):
    name, arguments = call
    try:
        module = getattr(mmdet_attn, name)(**arguments)
    except (TypeError, ValueError) as error:
        assert_named(error, name)
        return
    torch.manual_seed(0)
    x = torch.randn(2, arguments['in_channels'], 7, 5)
    try:
        y = module.train(training)(x)
    except ValueError as error:
        assert_named(error, name)
        return
    if name not in CONVS:
        assert y.shape == x.shape
    assert y.isfinite().all()
    assert name in repr(module)
