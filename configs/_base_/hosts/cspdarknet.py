# Behind dark3, dark4 and dark5: the three maps that YOLOX's neck gets.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='stage[234]',
        )
    ],
)
