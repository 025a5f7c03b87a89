"""Tables 5 and 6 of the ECA-Net paper."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from mmdet_attn.config_files import CONFIGS, load_config_file
from mmdet_attn.study.settings import Difference, differences
from mmdet_attn.study.table import METRICS, attention_of, base_of

# Parameters in millions, GFLOPs, and box AP in percent in the order of
# METRICS, by the name of the config that trains the row.
TABLE_5 = {
    'faster_rcnn_r50': (41.53, 207.07, 36.4, 58.2, 39.2, 21.8, 40.0, 46.2),
    'faster_rcnn_r50_se': (44.02, 207.18, 37.7, 60.1, 40.9, 22.9, 41.9, 48.2),
    'faster_rcnn_r50_eca': (41.53, 207.18, 38.0, 60.6, 40.9, 23.4, 42.1, 48.0),
    'faster_rcnn_r101': (60.52, 283.14, 38.7, 60.6, 41.9, 22.7, 43.2, 50.4),
    'faster_rcnn_r101_se': (65.24, 283.33, 39.6, 62.0, 43.1, 23.7, 44.0, 51.4),
    'faster_rcnn_r101_eca': (
        60.52,
        283.32,
        40.3,
        62.9,
        44.0,
        24.5,
        44.7,
        51.3,
    ),
    'mask_rcnn_r50': (44.18, 275.58, 37.2, 58.9, 40.3, 22.2, 40.7, 48.0),
    'mask_rcnn_r50_se': (46.67, 275.69, 38.7, 60.9, 42.1, 23.4, 42.7, 50.0),
    'mask_rcnn_r50_eca': (44.18, 275.69, 39.0, 61.3, 42.1, 24.2, 42.8, 49.9),
    'mask_rcnn_r101': (63.17, 351.65, 39.4, 60.9, 43.3, 23.0, 43.7, 51.4),
    'mask_rcnn_r101_se': (67.89, 351.84, 40.7, 62.5, 44.3, 23.9, 45.2, 52.8),
    'mask_rcnn_r101_eca': (63.17, 351.83, 41.3, 63.1, 44.8, 25.1, 45.8, 52.9),
    'retinanet_r50': (37.74, 239.32, 35.6, 55.5, 38.2, 20.0, 39.6, 46.8),
    'retinanet_r50_se': (40.23, 239.43, 37.1, 57.2, 39.9, 21.2, 40.7, 49.3),
    'retinanet_r50_eca': (37.74, 239.43, 37.3, 57.7, 39.6, 21.9, 41.3, 48.9),
    'retinanet_r101': (56.74, 315.39, 37.7, 57.5, 40.4, 21.1, 42.2, 49.5),
    'retinanet_r101_se': (61.45, 315.58, 38.7, 59.1, 41.6, 22.1, 43.1, 50.9),
    'retinanet_r101_eca': (56.74, 315.57, 39.1, 59.9, 41.8, 22.8, 43.4, 50.6),
}

# Also in Table 5, but taken from GCNet. GCNet counted parameters and FLOPs in
# another way and trained with SyncBN.
FROM_GCNET = {
    'mask_rcnn_r50_nonlocal': (
        46.5,
        288.7,
        38.0,
        59.8,
        41.0,
        None,
        None,
        None,
    ),
    'mask_rcnn_r50_gc': (46.9, 279.6, 39.4, 61.6, 42.4, None, None, None),
}

# Mask AP, by the true area of the masks, as MMDetection 3.x measures it.
TABLE_6 = {
    'mask_rcnn_r50': (34.1, 55.5, 36.2, 16.1, 36.7, 50.0),
    'mask_rcnn_r50_se': (35.4, 57.4, 37.8, 17.1, 38.6, 51.8),
    'mask_rcnn_r50_nonlocal': (34.7, 56.7, 36.6, None, None, None),
    'mask_rcnn_r50_gc': (35.7, 58.4, 37.6, None, None, None),
    'mask_rcnn_r50_eca': (35.6, 58.1, 37.7, 17.6, 39.0, 51.8),
    'mask_rcnn_r101': (35.9, 57.7, 38.4, 16.8, 39.1, 53.6),
    'mask_rcnn_r101_se': (36.8, 59.3, 39.2, 17.2, 40.3, 53.6),
    'mask_rcnn_r101_eca': (37.4, 59.9, 39.8, 18.1, 41.1, 54.1),
}

NOTES = {
    'mask_rcnn_r50_gc': "the paper's row is GCNet's with SyncBN, whose own "
    'baseline is 37.2 box and 33.8 mask AP; with fixed batch norm GCNet has '
    '38.5 and 35.1',
    'mask_rcnn_r50_nonlocal': "the paper's row is GCNet's, with SyncBN",
    'retinanet_r50_eca': "the paper's text says +1.8, its table gives +1.7",
}


DETECTORS = {
    'FasterRCNN': 'faster_rcnn',
    'MaskRCNN': 'mask_rcnn',
    'RetinaNet': 'retinanet',
}
# ContextBlock and NonLocal2d are the same modules in mmcv.
FAMILIES = {
    'none': '',
    'ECA': '_eca',
    'SE': '_se',
    'GC': '_gc',
    'ContextBlock': '_gc',
    'NonLocal': '_nonlocal',
    'NonLocal2d': '_nonlocal',
}


def row_of(model: Mapping, facts: Mapping) -> str | None:
    """The paper's row of a training on COCO. None if it has none.

    Args:
        model: The config of the detector.
        facts: The facts of the training.
    """
    detector, _, depth = base_of(model).partition(' ResNet-')
    family = FAMILIES.get(attention_of(model))
    row = f'{DETECTORS.get(detector)}_r{depth}{family}'
    if row not in TABLE_5 | FROM_GCNET:
        return None
    on_coco = 'instances_val2017.json' in str(
        facts['config']['val_dataloader']
    )
    return row if on_coco else None


def unlike_paper(row: str, facts: Mapping[str, Any]) -> list[Difference]:
    """The settings of a training that our config of a row does not have.

    The paper trained with 4 processes, in 14,659 iterations for the 117,266
    images of COCO with objects.
    """
    config = _config(row)
    init = config['model']['backbone']['init_cfg']['checkpoint']
    length = facts['schedule']['iterations_per_epoch']
    # Where COCO lies makes no difference.
    mine = {**facts, 'annotations': {'train': 'COCO', 'val': 'COCO'}}
    its = {
        'config': config,
        'weights': {'init': init},
        'schedule': {'iterations_per_epoch': length and 14659},
        'processes': 4,
        'lr_scale': 1.0,
    }
    return [
        each
        for each in differences(mine, {**mine, **its})
        if not each.key.endswith('metainfo.classes')  # as in num_classes
    ]


@cache
def _config(row: str) -> dict[str, Any]:
    from mmdet_attn.study.facts import plain

    return plain(load_config_file(CONFIGS / f'{row}.py').to_dict())


def paper_gain(row: str) -> dict[str, float]:
    """The paper's gains of a row over its row without attention.

    Args:
        row: Name of the config that trains it.

    Returns:
        Gains in percent by the names of the table of results.
    """
    found: dict[str, float] = {}
    base = row.rpartition('_')[0]
    for prefix, table in (('', TABLE_5 | FROM_GCNET), ('mask_', TABLE_6)):
        ends = [table.get(name, ())[-6:] for name in (row, base)]
        for metric, mine, its in zip(METRICS, *ends, strict=False):
            if mine is not None and its is not None:
                found[prefix + metric] = round(mine - its, 1)
    return found
