_base_ = ['mask_rcnn_x50.py', '_base_/attention/eca_adaptive.py']
model = dict(backbone=dict(_base_.attention, type='ResNeXt'))
