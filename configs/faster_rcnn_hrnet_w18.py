# MMDetection's own schedule: 12 epochs, SGD, 8 GPUs x 2 images.
_base_ = 'mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py'
model = dict(
    backbone=dict(init_cfg=dict(type='mmdet_attn.AttentionPretrained'))
)
val_evaluator = dict(type='mmdet_attn.FastCocoMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(type='mmdet_attn.CheckpointHook'))
