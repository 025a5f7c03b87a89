_base_ = ['../_base_/imagenet.py', '../_base_/attention/eca.py']
for plugin in _base_.attention['plugins']:
    plugin['cfg']['identity_init'] = False
model = dict(backbone=_base_.attention)
