"""What a detector of MMDetection 1.x for COCO holds."""

from mmdet_attn.errors import InputError
from mmdet_attn.weights.infer_backbone import State

# Rows of the last layers: 80 classes, and where 1.x has it the background.
_BOX = {'bbox_head.fc_cls': 81, 'bbox_head.fc_reg': 4 * 81}
HEADS = {
    'faster_rcnn': _BOX,
    'mask_rcnn': {**_BOX, 'mask_head.conv_logits': 81},
    'retinanet': {'bbox_head.retina_cls': 9 * 80, 'bbox_head.retina_reg': 36},
}


def detector_of(state: State) -> str:
    """Which detector of `HEADS` the weights are of, and of nothing else.

    Raises:
        InputError: They are of none, not of 1.x or not of the 80 classes of
            COCO, or have keys beside those of the detector.
    """
    if any(key.startswith('roi_head.') for key in state):
        raise InputError(
            'The weights have keys roi_head.*, as MMDetection 2.x and 3.x '
            'have: they are converted already, load them as they are.'
        )
    kind = 'faster_rcnn'
    if any(key.startswith('mask_head.') for key in state):
        kind = 'mask_rcnn'
    elif any(key.startswith('bbox_head.retina_') for key in state):
        kind = 'retinanet'
    for layer, rows in HEADS[kind].items():
        for key in (f'{layer}.weight', f'{layer}.bias'):
            _check_rows(state, key, rows)
    parts = {'backbone', 'neck'} | {key.split('.')[0] for key in HEADS[kind]}
    parts |= {'rpn_head'} if kind != 'retinanet' else set()
    rest = [key for key in state if key.split('.')[0] not in parts]
    if rest:
        raise InputError(
            f'{len(rest)} keys do not belong to a {kind} of MMDetection 1.x, '
            f'which has {", ".join(sorted(parts))}: {", ".join(rest[:8])}. '
            'Take them out, or give the file of the detector alone.'
        )
    return kind


def _check_rows(state: State, key: str, rows: int) -> None:
    if key not in state:
        raise InputError(
            f'The weights have no {key}; Faster R-CNN, Mask R-CNN and '
            'RetinaNet of MMDetection 1.x can be converted, which have '
            + ' or '.join(' and '.join(layers) for layers in HEADS.values())
            + '. Give the file of such a detector.'
        )
    found = len(state[key])
    if found == rows:
        return
    if found * 81 == rows * 80:
        why = '3.x has this number: they are converted already'
    else:
        why = 'take weights of these classes'
    raise InputError(
        f'{key} has {found} rows; MMDetection 1.x has {rows} for the 80 '
        f'classes of COCO; {why}.'
    )
