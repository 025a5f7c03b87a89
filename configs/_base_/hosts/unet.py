# mmseg's UNet: behind each block of the encoder and of the decoder.
attention = dict(
    _delete_=True,
    type='mmdet_attn.insert',
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.ECA', identity_init=True),
            at=['encoder.?', 'decoder.?'],
        )
    ],
)
