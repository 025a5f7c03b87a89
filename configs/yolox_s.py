# MMDetection's own schedule: 300 epochs from scratch, 8 GPUs x 8 images.
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
val_evaluator = dict(type='mmdet_attn.FastCocoMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(type='mmdet_attn.CheckpointHook'))
