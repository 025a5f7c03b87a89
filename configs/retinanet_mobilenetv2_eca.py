_base_ = ['retinanet_mobilenetv2.py', '_base_/attention/eca_mobilenetv2.py']
model = dict(
    backbone=dict(host=_base_.model.backbone, **_base_.attention),
)
