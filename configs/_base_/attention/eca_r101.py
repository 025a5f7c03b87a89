# Kernel sizes of the authors' ImageNet weights eca_resnet101_k3357 and
# eca_resnet152_k3357.
_base_ = 'eca.py'
attention = _base_.attention
attention['plugins'][0]['stages'] = (True, True, False, False)
attention['plugins'][1]['stages'] = (False, False, True, False)
