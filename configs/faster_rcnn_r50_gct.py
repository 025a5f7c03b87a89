_base_ = ['faster_rcnn_r50.py', '_base_/attention/gct.py']
model = dict(
    backbone=dict(host=_base_.model.backbone, **_base_.attention),
)
optim_wrapper = dict(paramwise_cfg=_base_.attention_decay)
