# MMDetection 1.x's arithmetic at inference: see mmdet_attn.mmdet1.
legacy = dict(
    bbox_head=dict(
        type='mmdet_attn.LegacyRetinaHead',
        anchor_generator=dict(type='LegacyAnchorGenerator', center_offset=0.5),
        bbox_coder=dict(type='mmdet_attn.LegacyBoxCoder'),
    ),
    test_cfg=dict(nms=dict(offset=1), min_bbox_size=-1),
)
