# The ECA-Net paper, section 4.1: 12 epochs, SGD, 4 GPUs x 2 images, learning
# rate 0.01, divided by 10 after epochs 8 and 11. What the paper leaves open is
# the default of the MMDetection of its day: warm-up and gradient clipping.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    # `end` counts the last warm-up iteration too: factor 1 at iteration 500.
    dict(
        type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=501
    ),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=12,
        milestones=[8, 11],
        gamma=0.1,
    ),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=35, norm_type=2),
)

# --auto-scale-lr scales from 4 GPUs x 2 images. RetinaNet's 0.01 is the
# authors' too (their files are named bs8_lr0.01), twice mmdet's default.
auto_scale_lr = dict(enable=False, base_batch_size=8)
