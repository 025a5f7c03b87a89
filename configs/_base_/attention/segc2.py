# ECA-Net's ablation (Table 2): groups of 16 channels, where SE has its two layers.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEGC2', identity_init=True),
            position='after_conv3',
        )
    ],
)
