_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/coco_detection.py',
    '_base_/runtime.py',
    '_base_/schedule_1x.py',
]
model = dict(
    backbone=dict(init_cfg=dict(type='mmdet_attn.AttentionPretrained'))
)
