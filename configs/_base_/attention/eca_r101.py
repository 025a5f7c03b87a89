# Kernel sizes of the authors' ImageNet weights eca_resnet101_k3357.
_base_ = 'eca.py'
plugins = _base_.plugins
plugins[0]['stages'] = (True, True, False, False)
plugins[1]['stages'] = (False, False, True, False)
