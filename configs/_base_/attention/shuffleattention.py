# The authors have it in every block, with 64 groups in each stage. Positions
# with fewer than 128 channels (after_conv2, ResNet-18) need groups=32 or less.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ShuffleAttention', identity_init=True),
            position='after_conv3',
        )
    ],
)
