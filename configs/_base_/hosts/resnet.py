# At the end of each residual branch, behind its last norm: in ResNet-50 and
# deeper, Res2Net, ResNeXt, RegNet and ResNeSt.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='layer*.*.bn3',
        )
    ],
)
