_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/shapes.py',
    '../_base_/attention/eca.py',
]
model = dict(
    backbone=dict(**_base_.narrow, **_base_.attention),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=48, num_outs=4),
    rpn_head=dict(
        in_channels=48,
        feat_channels=48,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=48, finest_scale=16
        ),
        bbox_head=dict(in_channels=48, fc_out_channels=256, num_classes=5),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=200),
        rcnn=dict(sampler=dict(num=64, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=200)),
)
