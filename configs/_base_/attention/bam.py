# The paper has it behind each of the first three stages.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.BAM', identity_init=True),
            stages=(True, True, True, False),
            blocks=(-1,),
            position='after_block',
        )
    ],
)
