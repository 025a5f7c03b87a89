# The authors' mask_rcnn_ecanet50_k3377_bs8_lr0.01.
_base_ = [
    '../mask_rcnn_r50.py',
    '../_base_/legacy_mask_rcnn.py',
    '../_base_/attention/eca_k3377.py',
]
model = dict(_base_.legacy, backbone=_base_.attention)
