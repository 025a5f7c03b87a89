# CCNet has it in a segmentation head on the last stage, applied twice. Here it
# is the end of that stage.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.CrissCross', recurrence=2),
            stages=(False, False, False, True),
            blocks=(-1,),
            position='after_block',
        )
    ],
)
