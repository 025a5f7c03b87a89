# A schedule for about 100 photographs: 36 epochs, a warm-up of 100 iterations,
# and a line, a validation and a checkpoint often enough to see what happens.
# A config takes the sections that it wants, as faster_rcnn_r50_eca_small.py
# does; --epochs makes the training longer or shorter.
small = dict(
    train_cfg=dict(max_epochs=36, val_interval=3),
    param_scheduler=[
        dict(
            type='LinearLR',
            start_factor=0.001,
            by_epoch=False,
            begin=0,
            end=100,
        ),
        dict(
            type='MultiStepLR',
            by_epoch=True,
            begin=0,
            end=36,
            milestones=[24, 33],
            gamma=0.1,
        ),
    ],
    default_hooks=dict(
        logger=dict(interval=10),
        checkpoint=dict(
            interval=3,
            max_keep_ckpts=2,
            save_best='coco/bbox_mAP',
            rule='greater',
        ),
    ),
    # Width and height: a third of the pixels of COCO's (1333, 800).
    image_scale=(800, 480),
)
