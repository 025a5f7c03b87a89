_base_ = ['rtmdet_tiny.py', '_base_/hosts/cspnext.py']
model = dict(backbone=dict(host=_base_.model.backbone, **_base_.attention))
