# At the end of each residual branch, behind its last norm.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at=['layer1.*.bn3', 'stage*.branches.*.bn2'],
        )
    ],
)
