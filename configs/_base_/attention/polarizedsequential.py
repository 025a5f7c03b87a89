# The authors have it in HRNet's blocks, behind a 3x3 convolution. Before the
# addition it would add 34 M parameters.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(
                type='mmdet_attn.PolarizedSequential',
                identity_init=True,
            ),
            position='after_conv2',
        )
    ],
)
