# The authors have it in every block, before the addition.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.NAM', identity_init=True),
            position='after_conv3',
        )
    ],
)
