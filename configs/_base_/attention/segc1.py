# ECA-Net's ablation (Table 2): 16 groups, where SE has its two layers.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEGC1', identity_init=True),
            position='after_conv3',
        )
    ],
)
