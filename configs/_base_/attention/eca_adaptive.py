# The kernel sizes are the paper's formula: 5, 5, 5, 7. Use it for networks
# without released weights.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            position='after_conv3',
        )
    ],
)
