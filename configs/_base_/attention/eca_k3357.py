# The kernel sizes are those of the authors' detectors named 3357.
# Such a detector is loaded whole: nothing is downloaded, and no module starts
# as the identity.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    init_cfg=None,
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=3),
            stages=(True, True, False, False),
            position='after_conv3',
        ),
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=5),
            stages=(False, False, True, False),
            position='after_conv3',
        ),
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=7),
            stages=(False, False, False, True),
            position='after_conv3',
        ),
    ],
)
