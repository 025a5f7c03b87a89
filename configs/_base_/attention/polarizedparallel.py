# The authors have the sequential form behind a 3x3 convolution, and so has
# this. Before the addition it would add 40 M parameters.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.PolarizedParallel', identity_init=True),
            position='after_conv2',
        )
    ],
)
