"""Tables 5 and 6 of the ECA-Net paper."""

from typing import NamedTuple

from mmdet_attn.errors import InputError


class Row(NamedTuple):
    """One row: parameters in millions, GFLOPs, and box AP in percent."""

    params_m: float
    gflops: float
    ap: float
    ap50: float
    ap75: float
    ap_s: float | None
    ap_m: float | None
    ap_l: float | None


class AP(NamedTuple):
    """COCO's summary in percent. None if a value is not given."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_s: float | None
    ap_m: float | None
    ap_l: float | None

    def minus(self, other: 'AP') -> 'AP':
        """The gain over another AP, rounded to one digit."""
        pairs = zip(self, other, strict=True)
        return AP(
            *(
                None if a is None or b is None else round(a - b, 1)
                for a, b in pairs
            )
        )


# By the name of the config that trains the row.
TABLE_5 = {
    'faster_rcnn_r50': Row(41.53, 207.07, 36.4, 58.2, 39.2, 21.8, 40.0, 46.2),
    'faster_rcnn_r50_se': Row(
        44.02, 207.18, 37.7, 60.1, 40.9, 22.9, 41.9, 48.2
    ),
    'faster_rcnn_r50_eca': Row(
        41.53, 207.18, 38.0, 60.6, 40.9, 23.4, 42.1, 48.0
    ),
    'faster_rcnn_r101': Row(60.52, 283.14, 38.7, 60.6, 41.9, 22.7, 43.2, 50.4),
    'faster_rcnn_r101_se': Row(
        65.24, 283.33, 39.6, 62.0, 43.1, 23.7, 44.0, 51.4
    ),
    'faster_rcnn_r101_eca': Row(
        60.52, 283.32, 40.3, 62.9, 44.0, 24.5, 44.7, 51.3
    ),
    'mask_rcnn_r50': Row(44.18, 275.58, 37.2, 58.9, 40.3, 22.2, 40.7, 48.0),
    'mask_rcnn_r50_se': Row(46.67, 275.69, 38.7, 60.9, 42.1, 23.4, 42.7, 50.0),
    'mask_rcnn_r50_eca': Row(
        44.18, 275.69, 39.0, 61.3, 42.1, 24.2, 42.8, 49.9
    ),
    'mask_rcnn_r101': Row(63.17, 351.65, 39.4, 60.9, 43.3, 23.0, 43.7, 51.4),
    'mask_rcnn_r101_se': Row(
        67.89, 351.84, 40.7, 62.5, 44.3, 23.9, 45.2, 52.8
    ),
    'mask_rcnn_r101_eca': Row(
        63.17, 351.83, 41.3, 63.1, 44.8, 25.1, 45.8, 52.9
    ),
    'retinanet_r50': Row(37.74, 239.32, 35.6, 55.5, 38.2, 20.0, 39.6, 46.8),
    'retinanet_r50_se': Row(40.23, 239.43, 37.1, 57.2, 39.9, 21.2, 40.7, 49.3),
    'retinanet_r50_eca': Row(
        37.74, 239.43, 37.3, 57.7, 39.6, 21.9, 41.3, 48.9
    ),
    'retinanet_r101': Row(56.74, 315.39, 37.7, 57.5, 40.4, 21.1, 42.2, 49.5),
    'retinanet_r101_se': Row(
        61.45, 315.58, 38.7, 59.1, 41.6, 22.1, 43.1, 50.9
    ),
    'retinanet_r101_eca': Row(
        56.74, 315.57, 39.1, 59.9, 41.8, 22.8, 43.4, 50.6
    ),
}

# Also in Table 5, but taken from GCNet. GCNet counted parameters and FLOPs in
# another way and trained with SyncBN.
FROM_GCNET = {
    'mask_rcnn_r50_nonlocal': Row(
        46.50, 288.70, 38.0, 59.8, 41.0, None, None, None
    ),
    'mask_rcnn_r50_gc': Row(46.90, 279.60, 39.4, 61.6, 42.4, None, None, None),
}

# Mask AP, by the true area of the masks, as MMDetection 3.x measures it.
TABLE_6 = {
    'mask_rcnn_r50': AP(34.1, 55.5, 36.2, 16.1, 36.7, 50.0),
    'mask_rcnn_r50_se': AP(35.4, 57.4, 37.8, 17.1, 38.6, 51.8),
    'mask_rcnn_r50_nonlocal': AP(34.7, 56.7, 36.6, None, None, None),
    'mask_rcnn_r50_gc': AP(35.7, 58.4, 37.6, None, None, None),
    'mask_rcnn_r50_eca': AP(35.6, 58.1, 37.7, 17.6, 39.0, 51.8),
    'mask_rcnn_r101': AP(35.9, 57.7, 38.4, 16.8, 39.1, 53.6),
    'mask_rcnn_r101_se': AP(36.8, 59.3, 39.2, 17.2, 40.3, 53.6),
    'mask_rcnn_r101_eca': AP(37.4, 59.9, 39.8, 18.1, 41.1, 54.1),
}

NOTES = {
    'mask_rcnn_r50_gc': "the paper's row is GCNet's with SyncBN, whose own "
    'baseline is 37.2 box and 33.8 mask AP; with fixed batch norm GCNet has '
    '38.5 and 35.1',
    'mask_rcnn_r50_nonlocal': "the paper's row is GCNet's, with SyncBN",
    'retinanet_r50_eca': "the paper's text says +1.8, its table gives +1.7",
}


def paper_ap(row: str | None, kind: str) -> AP | None:
    """The paper's AP for a row. None if it has none.

    Args:
        row: Name of the config that trains it.
        kind: `'bbox'` or `'segm'`.
    """
    if kind not in ('bbox', 'segm'):
        raise InputError(f"kind must be 'bbox' or 'segm', got {kind!r}.")
    if kind == 'segm':
        return TABLE_6.get(row or '')
    found = (TABLE_5 | FROM_GCNET).get(row or '')
    return found and AP(*found[2:])


def paper_gain(row: str | None, kind: str) -> AP | None:
    """The paper's gain of a row over its row without attention."""
    mine = paper_ap(row, kind)
    base = paper_ap('_'.join((row or '').split('_')[:-1]), kind)
    return mine.minus(base) if mine and base else None
