# As in the paper: two blocks in res3, three in res4, after every other one.
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
