_base_ = 'retinanet_r50.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(
            type='mmdet_attn.AttentionPretrained',
            checkpoint='open-mmlab://mmdet/mobilenet_v2',
        ),
    ),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
