_base_ = 'mmdet::_base_/datasets/coco_instance.py'
val_evaluator = dict(type='mmdet_attn.FastCocoMetric')
test_evaluator = val_evaluator
