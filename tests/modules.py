"""The modules under test, as mmdet_attn exports them, and how to make them."""

import inspect

import pytest
import torch
from mmengine.registry import MODELS

import mmdet_attn
from mmdet_attn import Attention, Gate

MODULES = {
    name: value
    for name in mmdet_attn.__all__
    if inspect.isclass(value := getattr(mmdet_attn, name))
    and issubclass(value, Attention)
    and value not in (Attention, Gate)
}
# Forms that compute something else than the default.
VARIANTS = {
    'CBAM-lp-lse': dict(type='CBAM', pool_types=('lp', 'lse')),
    'CBAM-channel': dict(type='CBAM', spatial=False),
    'BAM-add': dict(type='BAM', fusion='add'),
    'SCSE-add': dict(type='SCSE', fusion='add'),
    'GE-minus': dict(type='GE', variant='theta_minus'),
    'GE-minus-global': dict(type='GE', variant='theta_minus', extent=0),
    'GE-plus': dict(type='GE', variant='theta_plus', extent=2),
    'GSoP-position': dict(type='GSoP', mode='position'),
    'EMA-one': dict(type='EMA', factor=1),
    'GC-mul-avg': dict(type='GC', fusion=('mul', 'add'), pooling='avg'),
    'GCT-l1': dict(type='GCT', mode='l1'),
    'CrissCross-twice': dict(type='CrissCross', recurrence=2),
    'NonLocal-gaussian': dict(type='NonLocal', mode='gaussian'),
    'NonLocal-dot': dict(type='NonLocal', mode='dot_product'),
    'NonLocal-concat': dict(type='NonLocal', mode='concatenation'),
    'NonLocal-sub-BN': dict(
        type='NonLocal', sub_sample=True, norm_cfg=dict(type='BN')
    ),
    'GAM-groups': dict(type='GAM', reduction=4, groups=2, shuffle=True),
}
# Arguments without a default, and those whose default needs many channels.
NEEDED = {
    'EMA': dict(factor=4),
    'LSKA': dict(kernel_size=7),
    'SGE': dict(groups=8),
    'ShuffleAttention': dict(groups=8),
}
FORMS = {
    name: dict(type=name) | NEEDED.get(name, {}) for name in MODULES
} | VARIANTS


def takes_alpha(name):
    cls = MODULES[FORMS[name]['type']]
    return 'identity_init' in inspect.signature(cls).parameters


# Those with a switch for it, and those that add and start at zero.
IDENTITIES = [name for name in FORMS if name != 'GC-mul-avg']
SWITCHED = [
    name
    for name in IDENTITIES
    # Three have no weights; LSKUnit has zeros instead of an alpha.
    if takes_alpha(name) and name not in ('LSKUnit', 'SEVar1', 'SimAM')
    if not name.startswith('GE-minus')
]
GATES = [n for n in FORMS if issubclass(MODULES[FORMS[n]['type']], Gate)]

every = pytest.mark.parametrize('name', MODULES)
every_form = pytest.mark.parametrize('name', FORMS)
every_gate = pytest.mark.parametrize('name', GATES)
every_switched = pytest.mark.parametrize('name', SWITCHED)
every_identity = pytest.mark.parametrize('name', IDENTITIES)


def build(name, channels=32, **kwargs):
    cfg = FORMS[name] | dict(in_channels=channels) | kwargs
    torch.manual_seed(0)
    return MODELS.build(cfg | dict(type='mmdet_attn.' + cfg['type']))


def build_identity(name, channels=32):
    extra = {'identity_init': True} if takes_alpha(name) else {}
    return build(name, channels, **extra)


def randomise(module):
    """Weights, statistics and alphas away from every default."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for name, buffer in module.named_buffers():
        if name.endswith('running_mean'):
            torch.nn.init.normal_(buffer)
        elif name.endswith('running_var'):
            torch.nn.init.uniform_(buffer, 0.5, 2)
    return module
