_base_ = 'faster_rcnn_r50_eca_shapes.py'
model = dict(
    type='MaskRCNN',
    roi_head=dict(
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=1),
            out_channels=48,
            featmap_strides=[4, 8, 16, 32],
            finest_scale=16,
        ),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=2,
            in_channels=48,
            conv_out_channels=48,
            num_classes=5,
            loss_mask=dict(
                type='CrossEntropyLoss', use_mask=True, loss_weight=1.0
            ),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)
_base_.train_pipeline[1].with_mask = True
_base_.test_pipeline[2].with_mask = True
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
