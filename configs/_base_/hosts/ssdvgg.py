# Behind the two maps that SSD's neck gets: conv4_3 and conv7.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at=['features.22', 'features.34'],
        )
    ],
)
