# ECA-Net's ablation (Table 2): a full layer, without reduction, where SE has its two layers.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEVar3', identity_init=True),
            position='after_conv3',
        )
    ],
)
