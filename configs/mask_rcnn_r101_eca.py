_base_ = ['mask_rcnn_r101.py', '_base_/attention/eca_r101.py']
model = dict(backbone=_base_.attention)
