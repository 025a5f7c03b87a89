# There are no biases: only so the parameters are those of the SE rows in the
# ECA-Net paper.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SE', bias=False, identity_init=True),
            position='after_conv3',
        )
    ],
)
