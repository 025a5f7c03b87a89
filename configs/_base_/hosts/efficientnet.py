# At the end of each block, before the addition. The blocks have an SE of
# their own, so SE needs a postfix here: dict(type=..., postfix='_end').
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='layers.*.linear_conv',
        )
    ],
)
