# The authors' faster_rcnn_ecanet50_k5_bs8_lr0.01.
_base_ = [
    '../faster_rcnn_r50.py',
    '../_base_/legacy_rcnn.py',
    '../_base_/attention/eca_k5.py',
]
model = dict(_base_.legacy, backbone=_base_.attention)
