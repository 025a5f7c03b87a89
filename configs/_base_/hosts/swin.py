# At the end of each branch with window attention, before the addition.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='stages.*.blocks.*.attn',
        )
    ],
)
