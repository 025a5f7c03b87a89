# mmseg's BiSeNetV1: at the end of each residual branch of the context path.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at='context_path.backbone.layer*.bn2',
        )
    ],
)
