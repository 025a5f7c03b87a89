"""Table 5 of the ECA-Net paper: detection on COCO val2017."""

from typing import NamedTuple


class Row(NamedTuple):
    """One row: parameters in millions, GFLOPs, and box AP in percent."""

    params_m: float
    gflops: float
    ap: float
    ap50: float
    ap75: float
    ap_s: float
    ap_m: float
    ap_l: float


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
