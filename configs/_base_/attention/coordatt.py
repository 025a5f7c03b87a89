# SE's place, as its author advises for ResNets; the paper has MobileNets only.
# AttentionResNet, because batch norm that starts here must see the data.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.CoordAtt', identity_init=True),
            position='after_conv3',
        )
    ],
)
