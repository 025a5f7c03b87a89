# The paper has k = 1 in blocks of fewer than 96 channels and k = 3 in others.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=1, identity_init=True),
            at='layer[1-4].*.linear_conv',
        ),
        dict(
            cfg=dict(type='mmdet_attn.ECA', kernel_size=3, identity_init=True),
            at='layer[5-7].*.linear_conv',
        ),
    ],
)
