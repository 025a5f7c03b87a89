# At the end of each inverted residual, before the addition.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='layer?.*.linear_conv',
        )
    ],
)
