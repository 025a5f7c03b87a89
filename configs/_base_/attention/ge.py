# Extent 8, where the paper's best is global: that fits one input size only.
# AttentionResNet, because batch norm that starts here must see the data.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.GE', extent=8, identity_init=True),
            position='after_conv3',
        )
    ],
)
