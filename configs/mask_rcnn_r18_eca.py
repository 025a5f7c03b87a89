_base_ = ['mask_rcnn_r18.py', '_base_/attention/eca_r18.py']
model = dict(backbone=_base_.attention)
