# Without biases: only so are the parameters the ECA-Net paper's SE rows.
attention = dict(
    plugins=[
        dict(
            cfg=dict(type='mmdet_attn.SE', bias=False, identity_init=True),
            position='after_conv3',
        )
    ],
)
