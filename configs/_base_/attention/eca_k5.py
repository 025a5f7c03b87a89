_base_ = 'eca_k3357.py'
attention = _base_.attention
del attention['plugins'][2], attention['plugins'][0]
attention['plugins'][0]['stages'] = (True, True, True, True)
