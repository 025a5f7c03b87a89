# MMDetection's own schedule: 300 epochs, 8 GPUs x 32 images.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
model = dict(
    backbone=dict(init_cfg=dict(type='mmdet_attn.AttentionPretrained'))
)
val_evaluator = dict(type='mmdet_attn.FastCocoMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(type='mmdet_attn.CheckpointHook'))
