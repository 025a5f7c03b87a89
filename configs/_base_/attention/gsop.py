# As in the paper: in the last block of each stage. Its stage 4 keeps stride 1,
# this one has the 2 that an FPN expects.
# AttentionResNet, because batch norm that starts here must see the data.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.GSoP', identity_init=True),
            blocks=(-1,),
            position='after_conv3',
        )
    ],
)
