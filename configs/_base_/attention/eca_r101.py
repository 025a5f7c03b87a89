# The kernel sizes are those of the authors' ImageNet weights
# eca_resnet101_k3357 and eca_resnet152_k3357.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=3, identity_init=True),
            stages=(True, True, False, False),
            position='after_conv3',
        ),
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=5, identity_init=True),
            stages=(False, False, True, False),
            position='after_conv3',
        ),
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=7, identity_init=True),
            stages=(False, False, False, True),
            position='after_conv3',
        ),
    ],
)
