_base_ = 'mask_rcnn_r50.py'
model = dict(
    backbone=dict(
        depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
