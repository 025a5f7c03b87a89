# The authors' faster_rcnn_ecanet101_3357_bs8_lr0.01.
_base_ = [
    '../faster_rcnn_r101.py',
    '../_base_/legacy_rcnn.py',
    '../_base_/attention/eca_k3357.py',
]
model = dict(_base_.legacy, backbone=_base_.attention)
