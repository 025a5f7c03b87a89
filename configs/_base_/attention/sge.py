# The authors have it in every block, with 64 groups in each stage.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SGE', identity_init=True),
            position='after_conv3',
        )
    ],
)
