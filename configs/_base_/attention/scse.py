# The paper has it behind the blocks of U-shaped networks. In a ResNet that is
# SE's place.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SCSE', identity_init=True),
            position='after_conv3',
        )
    ],
)
