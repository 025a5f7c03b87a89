# The ECA-Net paper has it in an ablation (Table 2), in SE's place: one full
# layer.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SEVar3', identity_init=True),
            position='after_conv3',
        )
    ],
)
