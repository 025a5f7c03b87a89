_base_ = ['dino_r50.py', '_base_/attention/eca.py']
model = dict(backbone=_base_.attention)
