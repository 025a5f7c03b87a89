# The authors' mask_rcnn_ecanet101_k3357_bs8_lr0.01.
_base_ = [
    '../mask_rcnn_r101.py',
    '../_base_/legacy_mask_rcnn.py',
    '../_base_/attention/eca_k3357.py',
]
model = dict(_base_.legacy, backbone=_base_.attention)
