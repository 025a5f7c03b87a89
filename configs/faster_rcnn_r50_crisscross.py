_base_ = ['faster_rcnn_r50.py', '_base_/attention/crisscross.py']
model = dict(backbone=_base_.attention)
