# The paper has it in every block, before the addition.
# AttentionResNet lets the batch norm of fresh modules learn under norm_eval.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SRM', identity_init=True),
            position='after_conv3',
        )
    ],
)
# The authors train these without weight decay.
attention_decay = dict(
    custom_keys={
        '.srm.cfc': dict(decay_mult=0.0),
        '.srm.norm': dict(decay_mult=0.0),
    }
)
