# The authors' RetinaNet_ecanet101_k3357_bs8_lr0.01.
_base_ = [
    '../retinanet_r101.py',
    '../_base_/legacy_retinanet.py',
    '../_base_/attention/eca_k3357.py',
]
model = dict(_base_.legacy, backbone=_base_.attention)
