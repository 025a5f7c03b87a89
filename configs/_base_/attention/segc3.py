# The ECA-Net paper has it in an ablation (Table 2), in SE's place: groups of 8
# channels.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEGC3', identity_init=True),
            position='after_conv3',
        )
    ],
)
