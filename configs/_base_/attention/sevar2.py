# ECA-Net's ablation (Table 2): a weight for each channel, where SE has its two layers.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEVar2', identity_init=True),
            position='after_conv3',
        )
    ],
)
