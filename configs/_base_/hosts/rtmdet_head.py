# Behind the last of the two convolutions of each branch of each level.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at=['cls_convs.?.1', 'reg_convs.?.1'],
        )
    ],
)
