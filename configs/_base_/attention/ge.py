# The paper's best extent is global, which fits one input size only. Here the
# extent is 8.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.GE', extent=8, identity_init=True),
            position='after_conv3',
        )
    ],
)
