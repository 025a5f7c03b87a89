_base_ = ['faster_rcnn_r50.py', '_base_/attention/ese.py']
model = dict(backbone=_base_.attention)
