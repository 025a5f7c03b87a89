# Behind the last three stages, whose maps the neck takes.
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
