# mmseg's BiSeNetV1: in the blocks of the context path, and behind the fusion.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at=['context_path.backbone.layer*.bn2', 'ffm'],
        )
    ],
)
