# The kernel sizes are those of the authors' ImageNet weights
# eca_resnet18_k3577. A block of ResNet-18 has two convolutions, which stock
# ResNet gives no plugins.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=3, identity_init=True),
            stages=(True, False, False, False),
            position='after_conv2',
        ),
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=5, identity_init=True),
            stages=(False, True, False, False),
            position='after_conv2',
        ),
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=7, identity_init=True),
            stages=(False, False, True, True),
            position='after_conv2',
        ),
    ],
)
