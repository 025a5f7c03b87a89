# As in the paper: in every block, before the addition.
# AttentionResNet, because batch norm that starts here must see the data.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.CBAM', identity_init=True),
            position='after_conv3',
        )
    ],
)
