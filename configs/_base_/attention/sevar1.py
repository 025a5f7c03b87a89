# ECA-Net's ablation (Table 2): the squeeze alone, where SE has its two layers.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEVar1', identity_init=True),
            position='after_conv3',
        )
    ],
)
