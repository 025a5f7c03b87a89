_base_ = ['faster_rcnn_r50_eca.py', '_base_/small.py']
train_cfg = _base_.small.train_cfg
param_scheduler = _base_.small.param_scheduler
default_hooks = _base_.small.default_hooks
_base_.train_pipeline[2].scale = _base_.small.image_scale
_base_.test_pipeline[1].scale = _base_.small.image_scale
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
