"""Very small detectors of every kind that can be exported."""

import copy
import functools
import re

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_attn.deployment.graph import Graph

CLASSES = 'circle', 'square', 'triangle', 'star', 'cross'
SIZE = 96


@MODELS.register_module()
class TinyBackbone(nn.Module):
    """Maps of strides 4, 8 and 16."""

    def __init__(self, channels=16):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, 4, 1)
        self.stages = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(2)
        )

    def forward(self, x):
        maps = [self.stem(x).relu()]
        for stage in self.stages:
            maps.append(stage(maps[-1]).relu())
        return tuple(maps)


BACKBONE = dict(
    type='mmdet_attn.insert',
    host=dict(type='TinyBackbone'),
    plugins=[dict(cfg=dict(type='mmdet_attn.ECA'), at='stages.*')],
)
NECK = dict(type='FPN', in_channels=[16] * 3, out_channels=16, num_outs=3)
NORM = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
ANCHORS = dict(
    type='AnchorGenerator',
    octave_base_scale=4,
    scales_per_octave=2,
    ratios=[0.5, 1.0],
    strides=[4, 8, 16],
)
DENSE = dict(num_classes=5, in_channels=16, feat_channels=32, stacked_convs=1)
TEST = dict(
    nms_pre=200,
    min_bbox_size=0,
    score_thr=0.3,
    nms=dict(type='nms', iou_threshold=0.5),
    max_per_img=60,
)
ONE_STAGE = dict(data_preprocessor=NORM, backbone=BACKBONE, neck=NECK)


def regions(size):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0),
        out_channels=16,
        featmap_strides=[4, 8, 16],
        finest_scale=8,
    )


FASTER = dict(
    **ONE_STAGE,
    type='FasterRCNN',
    train_cfg=None,
    rpn_head=dict(
        type='RPNHead',
        in_channels=16,
        feat_channels=16,
        anchor_generator=dict(
            type='AnchorGenerator',
            scales=[4],
            ratios=[0.5, 1.0],
            strides=[4, 8, 16],
        ),
    ),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=regions(3),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=16,
            fc_out_channels=32,
            roi_feat_size=3,
            num_classes=5,
        ),
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=100,
            max_per_img=50,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            score_thr=0.2,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=60,
            mask_thr_binary=0.5,
        ),
    ),
)
MASK = copy.deepcopy(FASTER) | {'type': 'MaskRCNN'}
MASK['roi_head'] |= dict(
    mask_roi_extractor=regions(6),
    mask_head=dict(
        type='FCNMaskHead',
        num_convs=1,
        in_channels=16,
        conv_out_channels=16,
        num_classes=5,
    ),
)
DETECTORS = {
    'RetinaNet': dict(
        **ONE_STAGE,
        type='RetinaNet',
        bbox_head=dict(**DENSE, type='RetinaHead', anchor_generator=ANCHORS),
        # Few pass the threshold; of the others the best max_per_img stay.
        test_cfg=TEST | dict(score_thr=0.9),
    ),
    'RetinaNet-softmax': dict(
        **ONE_STAGE,
        type='RetinaNet',
        bbox_head=dict(
            **DENSE,
            type='RetinaHead',
            anchor_generator=ANCHORS,
            loss_cls=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=TEST | {'nms': dict(TEST['nms'], class_agnostic=True)},
    ),
    'ATSS': dict(
        **ONE_STAGE,
        type='ATSS',
        bbox_head=dict(
            **DENSE,
            type='ATSSHead',
            anchor_generator=ANCHORS | dict(scales_per_octave=1, ratios=[1.0]),
        ),
        test_cfg=TEST,
    ),
    # None of the six, but it predicts by the same methods.
    'FCOS': dict(
        **ONE_STAGE,
        type='FCOS',
        bbox_head=dict(**DENSE, type='FCOSHead', strides=[4, 8, 16]),
        test_cfg=TEST,
    ),
    'RTMDet': dict(
        **ONE_STAGE | {'data_preprocessor': NORM | {'pad_size_divisor': 1}},
        type='RTMDet',
        bbox_head=dict(
            **DENSE,
            type='RTMDetSepBNHead',
            with_objectness=False,
            exp_on_reg=True,
            anchor_generator=dict(
                type='MlvlPointGenerator', offset=0, strides=[4, 8, 16]
            ),
            bbox_coder=dict(type='DistancePointBBoxCoder'),
        ),
        test_cfg=TEST,
    ),
    'YOLOX': dict(
        **ONE_STAGE | {'data_preprocessor': dict(type='DetDataPreprocessor')},
        type='YOLOX',
        bbox_head=dict(
            type='YOLOXHead',
            num_classes=5,
            in_channels=16,
            feat_channels=16,
            strides=[4, 8, 16],
            stacked_convs=1,
        ),
        test_cfg=dict(score_thr=0.3, nms=dict(type='nms', iou_threshold=0.5)),
    ),
    'FasterRCNN': FASTER,
    'MaskRCNN': MASK,
}
PADDED = 'RTMDet', 'YOLOX'


def config_of(name: str, data_root='none') -> Config:
    """A config with the test pipeline of such a detector."""
    pad = dict(type='Pad', size=(SIZE, SIZE), pad_val=dict(img=(114,) * 3))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=True),
        *([pad] if name in PADDED else []),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(
            type='PackDetInputs',
            meta_keys=(
                'img_id',
                'img_path',
                'ori_shape',
                'img_shape',
                'scale_factor',
            ),
        ),
    ]
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CocoDataset',
            data_root=str(data_root),
            ann_file='annotations/instances_val.json',
            data_prefix=dict(img='val/'),
            metainfo=dict(classes=CLASSES),
            test_mode=True,
            pipeline=pipeline,
        ),
    )
    return Config(
        dict(
            default_scope='mmdet',
            visualizer=dict(type='DetLocalVisualizer', name='visualizer'),
            model=copy.deepcopy(DETECTORS[name]),
            test_dataloader=loader,
            test_cfg=dict(type='TestLoop'),
            test_evaluator=dict(
                type='mmdet_attn.FastCocoMetric',
                ann_file=f'{data_root}/annotations/instances_val.json',
                metric=['bbox', 'segm'] if name == 'MaskRCNN' else 'bbox',
            ),
        )
    )


def build(name: str, seed: int = 0):
    """A detector with random weights, whose outputs have a spread of 1."""
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    detector = MODELS.build(config_of(name).model).eval()
    layers = nn.Conv2d, nn.ConvTranspose2d, nn.Linear

    hooks = []
    for name, module in detector.named_modules():
        if isinstance(module, layers):
            wanted = 0.3 if re.search(r'_reg(\.\d)?$', name) else 1.0
            rescale = functools.partial(_rescale, wanted)
            hooks.append(module.register_forward_hook(rescale))
    with torch.no_grad():
        for value in detector.parameters():
            if value.dim() > 1:
                nn.init.normal_(value)
        Graph(detector)(image(SIZE, SIZE))
    for hook in hooks:
        hook.remove()
    return detector


def _rescale(wanted, module, _, output):
    factor = wanted / output.std()
    module.weight *= factor
    return output * factor


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Squares of 8 pixels in colours by chance."""
    chance = torch.Generator().manual_seed(seed)
    small = torch.randint(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), generator=chance
    )
    large = small.repeat_interleave(8, 0).repeat_interleave(8, 1)
    return large[:height, :width].to(torch.uint8)
