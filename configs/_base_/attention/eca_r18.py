# Kernel sizes of the authors' ImageNet weights eca_resnet18_k3577; its
# blocks have two convolutions.
_base_ = 'eca.py'
attention = _base_.attention
attention['type'] = 'mmdet_attn.AttentionResNet'
attention['plugins'][1]['stages'] = (False, True, False, False)
attention['plugins'][2]['stages'] = (False, False, True, True)
for plugin in attention['plugins']:
    plugin['position'] = 'after_conv2'
