# The paper's ResNet-50 has it behind every block, with four groups and
# shuffled channels.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
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
