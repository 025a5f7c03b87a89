# As in the paper's c3-c5 rows, r = 16; they train with SyncBN, this with
# frozen BN like all rows here.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.GC'),
            stages=(False, True, True, True),
            position='after_conv3',
        )
    ],
)
