_base_ = ['mask_rcnn_r34.py', '_base_/attention/eca_r34.py']
model = dict(backbone=_base_.attention)
