# MMDetection 1.x's arithmetic at inference, for Faster R-CNN: see
# mmdet_attn.mmdet1 for what each part does.
legacy = dict(
    rpn_head=dict(
        anchor_generator=dict(type='LegacyAnchorGenerator', center_offset=0.5),
        bbox_coder=dict(type='mmdet_attn.LegacyBoxCoder'),
    ),
    roi_head=dict(
        type='mmdet_attn.LegacyRoIHead',
        bbox_roi_extractor=dict(
            type='mmdet_attn.LegacyRoIExtractor',
            roi_layer=dict(type='mmdet_attn.LegacyRoIAlign', sampling_ratio=2),
        ),
        bbox_head=dict(bbox_coder=dict(type='mmdet_attn.LegacyBoxCoder')),
    ),
    test_cfg=dict(
        rpn=dict(nms=dict(offset=1), min_bbox_size=-1),
        rcnn=dict(nms=dict(offset=1)),
    ),
)
