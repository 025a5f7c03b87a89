_base_ = ['faster_rcnn_r50.py', '_base_/attention/caa.py']
model = dict(backbone=_base_.attention)
