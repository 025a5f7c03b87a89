_base_ = 'legacy_rcnn.py'
legacy = _base_.legacy
legacy['roi_head']['mask_roi_extractor'] = legacy['roi_head'][
    'bbox_roi_extractor'
]
