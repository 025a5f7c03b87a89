# It stands in front of the PAFPN of YOLOX-s, on three maps of the backbone. It
# starts as in the papers, because there is no pretrained network to keep.
attention = dict(
    type='mmdet_attn.AttentionNeck',
    in_channels=[128, 256, 512],
    plugin=dict(type='mmdet_attn.SE'),
)
