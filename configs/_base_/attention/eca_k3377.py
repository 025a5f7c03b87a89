_base_ = 'eca_k3357.py'
attention = _base_.attention
del attention['plugins'][1]
attention['plugins'][1]['stages'] = (False, False, True, True)
