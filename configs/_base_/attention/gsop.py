# The paper has it in the last block of each stage, and stride 1 in stage 4.
# Here that stride is 2, as an FPN expects.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.GSoP', identity_init=True),
            blocks=(-1,),
            position='after_conv3',
        )
    ],
)
