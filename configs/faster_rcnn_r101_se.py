_base_ = ['faster_rcnn_r101.py', '_base_/attention/se.py']
model = dict(backbone=_base_.attention)
