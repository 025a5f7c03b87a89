# mmseg's SegFormer: at the end of each feed-forward branch, on its maps.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='layers.*.ffn.layers',
        )
    ],
)
