# The paper has it in every block. The DCT sizes 56, 28, 14, 7 follow from the
# channels.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.FCA', identity_init=True),
            position='after_conv3',
        )
    ],
)
