# In front of YOLOX-s's PAFPN, on the three maps of its backbone; in the form
# of the papers, since there is no pretrained network to keep.
attention = dict(
    type='mmdet_attn.AttentionNeck',
    in_channels=[128, 256, 512],
    plugin=dict(type='mmdet_attn.SE'),
)
