"""Detectors with other kinds of attention train, in two processes."""

import re

import pytest
import torch
from conftest import DEMO, ROOT, box_ap, last_checkpoint, quick_options
from conftest import run_tool as run

PLUGINS = [
    ('after_conv2', dict(type='mmdet_attn.SE', identity_init=True)),
    ('after_conv3', dict(type='mmdet_attn.GC')),
    ('after_block', dict(type='mmdet_attn.CBAM', identity_init=True)),
]
CONFIG = f"""
_base_ = '{ROOT / DEMO}'
model = dict(
    backbone=dict(
        type='mmdet_attn.AttentionResNet',
        norm_eval=True,
        plugins={[dict(cfg=cfg, position=place) for place, cfg in PLUGINS]},
    )
)
"""
# A gate's scale, the last layer of an added branch, a statistic.
START_AT_ZERO = [
    'se.alpha',
    'gc.channel_add_conv.3.weight',
    'cbam.spatial.norm.running_mean',
]


@pytest.mark.slow
def test_trains(shapes, tmp_path):
    """What starts at zero moves in every block; AP is that of test.py."""
    config = tmp_path / 'config.py'
    config.write_text(CONFIG)
    work = tmp_path / 'work'
    log = run('tools/dist_train.sh', config, 2, *quick_options(shapes, work))
    assert len(re.findall(r' loss: [\d.]+', log)) == 2
    checkpoint = last_checkpoint(work)
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    for name in START_AT_ZERO:
        values = [v for k, v in state.items() if k.endswith(name)]
        assert len(values) == 16, name
        assert all(v.isfinite().all() and v.any() for v in values), name
    output = run(
        'tools/test.py', config, checkpoint, *quick_options(shapes, tmp_path)
    )
    assert box_ap(output) == box_ap(log)
