_base_ = ['faster_rcnn_r50.py', '_base_/attention/polarizedparallel.py']
model = dict(backbone=_base_.attention)
