# At the end of each residual branch, before the addition.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='conv_res_block?.res?.conv2',
        )
    ],
)
