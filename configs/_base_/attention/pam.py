# DANet's position attention stands in a segmentation head on the last stage:
# here it is the end of that stage.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.PAM'),
            stages=(False, False, False, True),
            blocks=(-1,),
            position='after_block',
        )
    ],
)
