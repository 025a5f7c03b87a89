# The ECA-Net paper has it in an ablation (Table 2): k = 3, and each channel
# has its own weights.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECANS', identity_init=True),
            position='after_conv3',
        )
    ],
)
