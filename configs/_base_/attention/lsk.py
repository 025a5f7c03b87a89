# LSKNet has it in a unit of its own. It stands behind the 3x3 convolution,
# because before the addition it would add 31 M parameters.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.LSK', identity_init=True),
            position='after_conv2',
        )
    ],
)
