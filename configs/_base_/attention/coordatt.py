# The paper has MobileNets only. Its author advises SE's place for ResNets.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.CoordAtt', identity_init=True),
            position='after_conv3',
        )
    ],
)
