# ECA-Net's ablation (Table 2): k = 3, no weight shared between channels.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECANS', identity_init=True),
            position='after_conv3',
        )
    ],
)
