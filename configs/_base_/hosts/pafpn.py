# Behind the last convolution of each level. The extra levels have none.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at=['fpn_convs.0', 'pafpn_convs.?'],
        )
    ],
)
