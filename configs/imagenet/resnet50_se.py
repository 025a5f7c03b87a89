_base_ = '../_base_/imagenet.py'
# As configs/_base_/attention/se.py, but as in the paper: no identity start.
model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='mmdet_attn.SE', bias=False),
                position='after_conv3',
            )
        ],
    )
)
