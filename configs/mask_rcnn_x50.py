_base_ = 'mask_rcnn_r50.py'
model = dict(
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=4,
        init_cfg=dict(checkpoint='open-mmlab://resnext50_32x4d'),
    )
)
