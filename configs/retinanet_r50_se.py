_base_ = ['retinanet_r50.py', '_base_/attention/se.py']
model = dict(backbone=_base_.attention)
