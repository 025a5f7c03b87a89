# The paper has it in VoVNet. In a ResNet it stands where the channels are few:
# at after_conv3 it adds 20 million parameters.
attention = dict(
    type='mmdet_attn.AttentionResNet',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ESE', identity_init=True),
            position='after_conv2',
        )
    ],
)
