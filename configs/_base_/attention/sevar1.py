# ECA-Net's ablation (Table 2), in SE's place: the squeeze alone.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEVar1', identity_init=True),
            position='after_conv3',
        )
    ],
)
