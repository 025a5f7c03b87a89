# PKINet has it beside its convolutions. It stands behind the 3x3 convolution,
# because before the addition it would add 41 M parameters.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.CAA', identity_init=True),
            position='after_conv2',
        )
    ],
)
