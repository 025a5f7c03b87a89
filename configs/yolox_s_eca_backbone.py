_base_ = ['yolox_s.py', '_base_/hosts/cspdarknet.py']
model = dict(backbone=dict(host=_base_.model.backbone, **_base_.attention))
