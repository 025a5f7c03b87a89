# The kernel sizes are those of the authors' detectors named k5.
# Such a detector is loaded whole: nothing is downloaded, and no module starts
# as the identity.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    init_cfg=None,
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=5),
            position='after_conv3',
        ),
    ],
)
