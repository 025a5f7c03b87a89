# As in the paper's COCO models: one block, before the last of res4.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.NonLocal'),
            stages=(False, False, True, False),
            blocks=(-2,),
            position='after_block',
        )
    ],
)
