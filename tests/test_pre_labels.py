"""predict.py: its JSON, its pictures, and detections as labels."""

import json

import numpy as np
import pytest
from conftest import DEMO, run_tool, user_error
from PIL import Image
from pycocotools.coco import COCO

from mmdet_attn.datasets.coco_check import check_annotations
from mmdet_attn.datasets.pre_labels import PreLabels, check_labels_out
from mmdet_attn.errors import InputError

CLASSES = ('cell', 'platelet')
FOUND = [
    {
        'image': 'photos/one.jpg',
        'width': 640,
        'height': 480,
        'bboxes': [[-3.0, 10.0, 100.0, 60.5], [600, 400, 650, 490]],
        'scores': [0.9, 0.31],
        'labels': [1, 0],
    },
    {  # a low score; a box of no width inside the image
        'image': 'photos/two.png',
        'width': 100,
        'height': 200,
        'bboxes': [[5, 5, 50, 50], [100, 5, 130, 50]],
        'scores': [0.29, 0.8],
        'labels': [0, 0],
    },
]


@pytest.fixture
def labels():
    made = PreLabels(CLASSES, 0.3)
    for found in FOUND:
        made.add(found)
    return made


def test_coco(labels, tmp_path):
    labels.write(tmp_path / 'new', 'coco')
    file = tmp_path / 'new/instances.json'
    assert check_annotations(file) == CLASSES
    coco = COCO(str(file))
    assert [x['file_name'] for x in coco.imgs.values()] == [
        'one.jpg',
        'two.png',
    ]
    one, two = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert one['bbox'] == [0, 10, 100, 50.5]
    assert one['area'] == 5050
    assert coco.cats[one['category_id']]['name'] == 'platelet'
    assert two['bbox'] == [600, 400, 40, 80]
    assert not coco.getAnnIds(imgIds=[2])


def test_coco_with_masks(tmp_path):
    from pycocotools.mask import encode

    mask = np.zeros((480, 640), np.uint8, order='F')
    mask[10:20, 30:50] = 1
    run_lengths = encode(mask)
    run_lengths['counts'] = run_lengths['counts'].decode()
    found = FOUND[0] | {'masks': [run_lengths] * 2}
    labels = PreLabels(CLASSES, 0.3)
    labels.add(found)
    labels.write(tmp_path, 'coco')
    file = tmp_path / 'instances.json'
    assert check_annotations(file, masks=True) == CLASSES
    coco = COCO(str(file))
    assert (coco.annToMask(coco.anns[1]) == mask).all()
    assert coco.anns[1]['area'] == 200


def test_yolo(labels, tmp_path):
    labels.write(tmp_path, 'yolo')
    assert (tmp_path / 'classes.txt').read_text() == 'cell\nplatelet\n'
    lines = (tmp_path / 'labels/one.txt').read_text().splitlines()
    assert [line.split()[0] for line in lines] == ['1', '0']
    boxes = np.array([line.split()[1:] for line in lines], float)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert boxes[0] == pytest.approx(
        [50 / 640, 35.25 / 480, 100 / 640, 50.5 / 480], abs=1e-6
    )
    assert (tmp_path / 'labels/two.txt').read_text() == ''


def test_corrected_labels_are_not_overwritten(shapes, tmp_path):
    check_labels_out(None)
    check_labels_out(str(tmp_path))
    check_labels_out(str(tmp_path / 'new'))
    (tmp_path / 'corrected.txt').touch()
    with pytest.raises(InputError, match='not an empty folder'):
        check_labels_out(str(tmp_path / 'corrected.txt'))
    message = user_error(
        *('tools/predict.py', DEMO, 'none.pth', shapes / 'val'),
        *('--labels-out', tmp_path),
    )
    assert 'no corrected labels are overwritten' in message


def changed(before, after):
    """The part of the pixels that is drawn on."""
    return (before != after).any(-1).mean()


def test_lines_and_labels_fit_the_image():
    """A detection covers the same part of a small and of a large image."""
    pytest.importorskip('mmdet')
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    from mmdet_attn.look.pictures import FittedVisualizer

    shares, widths = [], []
    for times in (0.6, 1):
        draw = FittedVisualizer()
        draw.dataset_meta = {'classes': CLASSES, 'palette': [(255, 0, 0)] * 2}
        image = np.zeros((int(800 * times), int(1333 * times), 3), np.uint8)
        sample = DetDataSample(
            pred_instances=InstanceData(
                bboxes=torch.tensor([[200.0, 200, 700, 600]]) * times,
                scores=torch.ones(1),
                labels=torch.zeros(1, dtype=torch.long),
            )
        )
        draw.add_datasample('x', image, sample, draw_gt=False)
        shares.append(changed(image, draw.get_image()))
        widths.append(draw.line_width)
    assert widths == [2, 3]
    assert shares[1] == pytest.approx(shares[0], rel=0.2)
    draw = FittedVisualizer(line_width=5)
    draw.add_datasample('x', image)
    assert draw.line_width == 5


@pytest.mark.slow
@pytest.mark.parametrize('layout', ['coco', 'yolo'])
def test_predictions_become_labels(trained, tmp_path, layout):
    image = trained.data / 'val/000003.png'
    out = tmp_path / 'out'
    printed = run_tool(
        *('tools/predict.py', trained.config, trained.checkpoint, image),
        *('--out-dir', out, '--score-thr', 0.1),
        *('--labels-out', tmp_path / 'new', '--labels-format', layout),
    )
    found = json.loads((out / 'preds/000003.json').read_text())
    with Image.open(image) as read:
        assert (found['width'], found['height']) == read.size
    names = ('circle', 'square', 'triangle', 'star', 'cross')
    assert found['names'] == [names[label] for label in found['labels']]
    kept = sum(score >= 0.1 for score in found['scores'])
    assert kept > 0
    assert f'{kept} labels in' in printed
    if layout == 'coco':
        file = tmp_path / 'new/instances.json'
        assert check_annotations(file) == names
        assert len(COCO(str(file)).anns) == kept
    else:
        text = (tmp_path / 'new/labels/000003.txt').read_text()
        assert len(text.splitlines()) == kept
