# The paper has k = 1 in blocks of fewer than 96 channels and k = 3 in others.
attention = dict(
    type='mmdet_attn.AttentionMobileNetV2',
    plugin=dict(type='mmdet_attn.ECA', kernel_size=3, identity_init=True),
    narrow=dict(kernel_size=1),
)
