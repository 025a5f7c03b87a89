# The authors have it behind the 3x3 convolution, in the last block of stages 1
# to 3 and in every block of stage 4.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SPM', identity_init=True),
            stages=(True, True, True, False),
            blocks=(-1,),
            position='after_conv2',
        ),
        dict(
            cfg=dict(type='mmdet_attn.SPM', identity_init=True),
            stages=(False, False, False, True),
            position='after_conv2',
        ),
    ],
)
