# The authors' network: ResNeXt-50 32x4d with selective kernels. Its plain
# weights do not have these layers. So nothing behind the stem may be frozen,
# and batch norm must learn, unless the weights are SKNet's own.
attention = dict(
    type='mmdet_attn.SKNet',
    dcn=dict(type='mmdet_attn.SKConv2d'),
    init_cfg=dict(checkpoint='open-mmlab://resnext50_32x4d', missing='fresh'),
    frozen_stages=0,
    norm_eval=False,
)
