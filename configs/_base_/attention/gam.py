# As in the paper's ResNet-50: after every block, four groups, shuffled.
# AttentionResNet, because batch norm that starts here must see the data.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(
                type='mmdet_attn.GAM',
                groups=4,
                shuffle=True,
                identity_init=True,
            ),
            position='after_block',
        )
    ],
)
