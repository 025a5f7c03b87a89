# The paper's c3-c5 rows have r = 16 and SyncBN. Here batch norm is frozen, as
# in all rows of this folder.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.GC'),
            stages=(False, True, True, True),
            position='after_conv3',
        )
    ],
)
