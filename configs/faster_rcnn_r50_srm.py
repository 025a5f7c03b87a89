_base_ = ['faster_rcnn_r50.py', '_base_/attention/srm.py']
model = dict(backbone=_base_.attention)
optim_wrapper = dict(paramwise_cfg=_base_.attention_decay)
