"""The recipe of the ECA-Net paper, in the words of `setup.py`."""

from mmdet_attn.study.results.images import COCO

# Section 4.1: 4 GPUs with 2 images each, SGD, 12 epochs.
RECIPE = {
    'data set': COCO,
    'batch': '8 (4 x 2)',
    'learning rate': '0.01',
    'optimiser': 'SGD, momentum=0.9, weight_decay=0.0001',
    'schedule': '12 epochs, x 0.1 after 8, 11',
    'image scale': '1333 x 800',
    'precision': 'float32',
    'warm-up': '500 iterations from 0.333',
    'gradient clipping': 'max_norm=35, norm_type=2',
    'frozen stages': '1',
    'detector loaded': 'none',
    'norm': 'BN, fixed',
}
# Defaults of MMDetection in 2019. The paper does not state them.
NOT_STATED = {'warm-up', 'gradient clipping', 'norm', 'precision'}
ATTENTION = {
    'se': 'SE(bias=False) after_conv3 in stages 1, 2, 3, 4',
    'eca': 'ECA after_conv3 in stages 1, 2, 3, 4',
    'gc': 'GC after_conv3 in stages 2, 3, 4',
    'nonlocal': 'NonLocal after_block in stages 3, blocks -2',
}
# By the names of the authors' files.
KERNELS = {
    'faster_rcnn_r50_eca': '5, 5, 5, 5',
    'faster_rcnn_r101_eca': '3, 3, 5, 7',
    'mask_rcnn_r50_eca': '3, 3, 7, 7',
    'mask_rcnn_r101_eca': '3, 3, 5, 7',
    'retinanet_r50_eca': '3, 3, 7, 7',
    'retinanet_r101_eca': '3, 3, 5, 7',
}


def recipe(row: str | None) -> dict[str, str]:
    """The paper's settings for a row. Without a row, those of all rows."""
    if row is None:
        return RECIPE
    depth, family = row.split('_r')[-1].split('_')[0], row.split('_')[-1]
    found = dict(RECIPE)
    if family not in ATTENTION:
        return found | {'weights': f'torchvision://resnet{depth}'}
    found['attention'] = ATTENTION[family]
    if family in ('gc', 'nonlocal'):
        found['weights'] = f'torchvision://resnet{depth}'
        found['norm'] = 'SyncBN, learning'
    else:
        # The authors trained them on ImageNet first.
        found["attention's start"] = 'from the weights'
    if row in KERNELS:
        found['kernel sizes'] = KERNELS[row]
    return found
