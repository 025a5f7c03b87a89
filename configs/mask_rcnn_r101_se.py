_base_ = ['mask_rcnn_r101.py', '_base_/attention/se.py']
model = dict(backbone=_base_.attention)
