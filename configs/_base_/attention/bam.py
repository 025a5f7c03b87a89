# As in the paper: after the first three stages.
# AttentionResNet, because batch norm that starts here must see the data.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.BAM', identity_init=True),
            stages=(True, True, True, False),
            blocks=(-1,),
            position='after_block',
        )
    ],
)
