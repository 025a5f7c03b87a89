"""What must hold for any shape and any argument, found out by hypothesis."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from modules import MODULES, randomise, takes_alpha

from mmdet_attn import Gate

odd = st.integers(0, 4).map(lambda n: 2 * n + 1)
reduction = st.integers(1, 64)
norm_cfg = st.sampled_from(
    [None, dict(type='BN'), dict(type='GN', num_groups=1)]
)
ARGUMENTS = {
    'SE': dict(reduction=reduction, bias=st.booleans()),
    'ECA': dict(kernel_size=odd | st.none(), gamma=st.floats(0.5, 4)),
    'ECANS': dict(kernel_size=odd),
    'CBAM': dict(
        reduction=reduction,
        kernel_size=odd,
        pool_types=st.sets(
            st.sampled_from(['avg', 'max', 'lp', 'lse']), min_size=1
        ).map(sorted),
        spatial=st.booleans(),
        norm_cfg=norm_cfg,
    ),
    'BAM': dict(
        # Two hidden channels: group norm refuses a single value here, too.
        reduction=st.integers(1, 8),
        dilation=st.integers(1, 5),
        fusion=st.sampled_from(['mul', 'add']),
        norm_cfg=norm_cfg,
    ),
    'SCSE': dict(reduction=reduction, fusion=st.sampled_from(['max', 'add'])),
    'GE': dict(
        variant=st.sampled_from(['theta', 'theta_minus', 'theta_plus']),
        extent=st.sampled_from([2, 4, 8, 16]),
        norm_cfg=norm_cfg,
    ),
    'GSoP': dict(
        att_dim=st.integers(1, 40),
        stride=st.integers(1, 3),
        mode=st.sampled_from(['channel', 'position']),
        norm_cfg=norm_cfg,
    ),
    'GC': dict(
        reduction=reduction,
        pooling=st.sampled_from(['att', 'avg']),
        fusion=st.sampled_from([('add',), ('mul',), ('add', 'mul')]),
    ),
    'NonLocal': dict(
        reduction=reduction,
        mode=st.sampled_from(
            ['embedded_gaussian', 'gaussian', 'dot_product', 'concatenation']
        ),
        use_scale=st.booleans(),
        sub_sample=st.booleans(),
        norm_cfg=norm_cfg,
    ),
    'A2': dict(reduction=reduction),
    'GAM': dict(
        reduction=st.sampled_from([1, 2, 4]),
        groups=st.sampled_from([2, 4]),
        shuffle=st.booleans(),
        channel_sigmoid=st.booleans(),
        norm_cfg=norm_cfg,
    ),
    'CoordAtt': dict(
        reduction=reduction, min_channels=st.integers(1, 9), norm_cfg=norm_cfg
    ),
    'FCA': dict(
        reduction=reduction,
        dct_size=st.integers(7, 20),
        frequencies=st.sampled_from(['top16', 'low1', 'bot8', [(0, 6)]]),
    ),
    'SimAM': dict(lambda_=st.floats(1e-5, 1)),
    'TripletAttention': dict(kernel_size=odd, norm_cfg=norm_cfg),
}
# These treat the positions as a set: no convolution, no coordinates.
SETS = ('SE', 'ECA', 'ECANS', 'SCSE', 'GC', 'A2', 'PAM', 'CAM', 'SimAM')
SETS += tuple(n for n in MODULES if n.startswith(('SEVar', 'SEGC')))


@st.composite
def cases(draw, names=tuple(MODULES)):
    name = draw(st.sampled_from(names))
    arguments = {k: draw(v) for k, v in ARGUMENTS.get(name, {}).items()}
    channels = 16 * draw(st.integers(1, 3))
    # At least two: group norm refuses to normalise a single value.
    height, width = draw(st.integers(2, 12)), draw(st.integers(1, 12))
    x = torch.randn(2, channels, height, width, dtype=torch.double)
    cfg = dict(type=f'mmdet_attn.{name}', in_channels=channels) | arguments
    return cfg, x


def make(cfg, **extra):
    torch.manual_seed(0)
    return randomise(MODELS.build(cfg | extra)).double().eval()


@settings(deadline=None, max_examples=150, derandomize=True)
@given(cases())
def test_images_do_not_see_each_other(case):
    """A batch is as good as its images one by one."""
    cfg, x = case
    module = make(cfg)
    y = module(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    alone = torch.cat([module(image) for image in x.split(1)])
    torch.testing.assert_close(y, alone)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(cases())
def test_alpha_leads_from_identity_to_paper(case):
    cfg, x = case
    if not takes_alpha(cfg['type'].split('.')[1]):
        return
    module, paper = make(cfg, identity_init=True), make(cfg)
    module.load_state_dict(paper.state_dict(), strict=False)
    gates = [m for m in module.modules() if isinstance(m, Gate)]
    with torch.no_grad():
        for gate in gates:
            gate.alpha.zero_()
        assert torch.equal(module(x), x)
        for gate in gates:
            gate.alpha.fill_(1)
        torch.testing.assert_close(module(x), paper(x))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(cases(SETS), st.randoms(use_true_random=False))
def test_positions_are_a_set(case, random):
    """Shuffled positions give the same values, shuffled."""
    cfg, x = case
    if cfg.get('sub_sample'):
        return
    module = make(cfg)
    order = list(range(x.shape[2] * x.shape[3]))
    random.shuffle(order)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    expected = module(x).flatten(2)[:, :, order].view_as(x)
    torch.testing.assert_close(module(shuffled), expected)
