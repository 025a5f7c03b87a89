# MMDetection's own schedule: 12 epochs, SGD, 8 GPUs x 2 images.
# Its backbone reads its checkpoint itself, without AttentionPretrained.
_base_ = 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py'
val_evaluator = dict(type='mmdet_attn.FastCocoMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(type='mmdet_attn.CheckpointHook'))
