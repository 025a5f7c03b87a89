# The paper has it in the place of every 3x3 convolution. Plain weights do not
# have these layers. So nothing behind the stem may be frozen, and batch norm
# must learn, unless the weights are EPSANet's own.
attention = dict(
    dcn=dict(type='mmdet_attn.PSAConv2d'),
    stage_with_dcn=(True, True, True, True),
    init_cfg=dict(missing='fresh'),
    frozen_stages=0,
    norm_eval=False,
)
