# At the end of each block, before the addition. CSPNeXt's own channel
# attention comes once behind all blocks of a stage.
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
