# As in the paper: in the place of every 3x3 convolution. Plain weights do not
# have these layers, so without EPSANet's own nothing behind the stem may be
# frozen, batch norm included.
attention = dict(
    dcn=dict(type='mmdet_attn.PSAConv2d'),
    stage_with_dcn=(True, True, True, True),
    init_cfg=dict(missing='fresh'),
    frozen_stages=0,
    norm_eval=False,
)
