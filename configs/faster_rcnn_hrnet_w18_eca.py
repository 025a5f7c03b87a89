_base_ = ['faster_rcnn_hrnet_w18.py', '_base_/hosts/hrnet.py']
model = dict(backbone=dict(host=_base_.model.backbone, **_base_.attention))
