"""Detectors with other kinds of attention train, in two processes."""

import re

import pytest
import torch
from conftest import ROOT, run_tool
from test_tools import box_ap, last_checkpoint, on

CONFIG = """
_base_ = '{root}/configs/demo/faster_rcnn_r50_eca_shapes.py'
model = dict(
    backbone=dict(
        type='mmdet_attn.AttentionResNet',
        norm_eval=True,
        plugins=[dict(cfg=dict({cfg}), position='{position}')],
    )
)
"""


@pytest.mark.parametrize(
    ('cfg', 'position', 'moved'),
    [
        (
            "type='mmdet_attn.SE', identity_init=True",
            'after_conv3',
            'se.alpha',
        ),
        (
            "type='mmdet_attn.GC'",
            'after_conv3',
            'gc.channel_add_conv.3.weight',
        ),
        (
            "type='mmdet_attn.CBAM', identity_init=True",
            'after_block',
            'cbam.spatial.norm.running_mean',
        ),
    ],
    ids=['gate', 'additive', 'batch norm'],
)
def test_trains(cfg, position, moved, shapes, tmp_path):
    """What starts at zero moves in every block; AP is that of test.py."""
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=ROOT, cfg=cfg, position=position))
    log = run_tool(
        'tools/dist_train.sh', config, 2, *on(shapes, tmp_path / 'work')
    )
    assert len(re.findall(r' loss: [\d.]+', log)) == 2
    checkpoint = last_checkpoint(tmp_path / 'work')
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    trained = [v for k, v in state.items() if k.endswith(moved)]
    assert len(trained) == 16
    assert all(value.isfinite().all() and value.any() for value in trained)
    output = run_tool(
        'tools/test.py', config, checkpoint, *on(shapes, tmp_path / 'test')
    )
    assert box_ap(output) == box_ap(log)
