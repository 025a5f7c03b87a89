# LSKNet has it in every block. It stands behind the 3x3 convolution, because
# before the addition it would add 72 M parameters.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.LSKUnit', identity_init=True),
            position='after_conv2',
        )
    ],
)
