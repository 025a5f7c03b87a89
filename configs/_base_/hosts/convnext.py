# MMPretrain's ConvNeXt: at the end of each block, before the addition.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='stages.*.drop_path',
            place='before',
        )
    ],
)
