# Behind the last convolution of each level of YOLOXPAFPN and CSPNeXtPAFPN.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='out_convs.?',
        )
    ],
)
