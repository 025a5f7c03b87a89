# Kernel sizes of the authors' ImageNet weights eca_resnet34_k3357; its
# blocks have two convolutions.
_base_ = 'eca_r101.py'
attention = _base_.attention
attention['type'] = 'mmdet_attn.AttentionResNet'
for plugin in attention['plugins']:
    plugin['position'] = 'after_conv2'
