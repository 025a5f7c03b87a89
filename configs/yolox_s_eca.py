_base_ = ['yolox_s.py', '_base_/attention/neck.py']
_base_.attention['plugin']['type'] = 'mmdet_attn.ECA'
model = dict(neck=[_base_.attention, _base_.model.neck])
