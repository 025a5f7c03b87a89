_base_ = ['faster_rcnn_r50.py', '_base_/attention/ecans.py']
model = dict(backbone=_base_.attention)
