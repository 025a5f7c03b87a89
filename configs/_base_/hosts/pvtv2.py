# At the end of each feed-forward branch, before the addition; mmseg's MiT has
# the same. In PVT v1 the last convolution of this branch is layers.3.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='layers.*.ffn.layers.4',
        )
    ],
)
