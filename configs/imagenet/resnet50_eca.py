_base_ = '../_base_/imagenet.py'
# As configs/_base_/attention/eca.py, but as in the paper: no identity start.
model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='mmdet_attn.ECA', kernel_size=3),
                stages=(True, False, False, False),
                position='after_conv3',
            ),
            dict(
                cfg=dict(type='mmdet_attn.ECA', kernel_size=5),
                stages=(False, True, True, False),
                position='after_conv3',
            ),
            dict(
                cfg=dict(type='mmdet_attn.ECA', kernel_size=7),
                stages=(False, False, False, True),
                position='after_conv3',
            ),
        ],
    )
)
