# VAN has it in every block; the kernel size is that of its ImageNet weights.
# It stands behind the 3x3 convolution, because before the addition it would
# add 21 M parameters.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(
                type='mmdet_attn.LSKA',
                kernel_size=23,
                identity_init=True,
            ),
            position='after_conv2',
        )
    ],
)
