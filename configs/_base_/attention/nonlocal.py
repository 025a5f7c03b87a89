# The paper's COCO models have one block, before the last block of stage 3.
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
