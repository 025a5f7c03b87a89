# At the end of each bottleneck of the CSP layers, before the addition. The
# last stage has no additions.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='stage*.blocks.*.conv2',
        )
    ],
)
