_base_ = ['yolox_s.py', '_base_/hosts/cspdarknet.py']
_base_.attention['plugins'][0]['cfg']['type'] = 'mmdet_attn.SE'
model = dict(backbone=dict(host=_base_.model.backbone, **_base_.attention))
