_base_ = ['retinanet_swin_t.py', '_base_/hosts/swin.py']
model = dict(backbone=dict(host=_base_.model.backbone, **_base_.attention))
