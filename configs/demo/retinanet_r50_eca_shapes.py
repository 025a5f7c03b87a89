_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/shapes.py',
    '../_base_/attention/eca.py',
]
model = dict(
    backbone=dict(**_base_.narrow, **_base_.attention),
    # From stride 4 on: the shapes are small.
    neck=dict(
        in_channels=[64, 128, 256, 512],
        out_channels=48,
        start_level=0,
        num_outs=4,
    ),
    bbox_head=dict(
        num_classes=5,
        in_channels=48,
        feat_channels=48,
        stacked_convs=2,
        anchor_generator=dict(strides=[4, 8, 16, 32]),
    ),
)
