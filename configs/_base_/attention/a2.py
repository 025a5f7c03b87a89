# The paper has five blocks, behind every other block of stages 2 and 3.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.A2'),
            stages=(False, True, False, False),
            blocks=(1, 3),
            position='after_block',
        ),
        dict(
            cfg=dict(type='mmdet_attn.A2'),
            stages=(False, False, True, False),
            blocks=(1, 3, 5),
            position='after_block',
        ),
    ],
)
