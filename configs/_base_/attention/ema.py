# The author advises the place of NAM in ResNets: every block, before the
# addition.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.EMA', identity_init=True),
            position='after_conv3',
        )
    ],
)
