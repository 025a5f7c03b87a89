"""Loss and AP read from mmengine's logs, over resumed runs, and drawn."""

import json

import cv2
import pytest

from mmdet_attn.errors import InputError
from mmdet_attn.study.results.curves import plot_curves, read_scalars


def write(work, time, records):
    folder = work / time / 'vis_data'
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / 'scalars.json').write_text('\n'.join(lines) + '\n')


def train(step, loss):
    epoch = (step + 1) // 2
    return dict(loss=loss, loss_cls=loss / 2, epoch=epoch, step=step)


def test_resumed_run_counts(tmp_path):
    write(tmp_path, '20260101_000000', [train(1, 4.0), train(2, 3.0)])
    write(
        tmp_path,
        '20260102_000000',
        [train(2, 2.5), {'coco/bbox_mAP': 0.25, 'step': 1}, train(3, 2.0)],
    )
    records, val = read_scalars(tmp_path)
    assert [r['loss'] for r in records] == [4.0, 2.5, 2.0]
    assert [r['coco/bbox_mAP'] for r in val] == [0.25]
    picture = cv2.imread(str(plot_curves(tmp_path, tmp_path / 'x.png')))
    width = picture.shape[1]
    for half in (picture[:, : width // 2], picture[:, width // 2 :]):
        assert half.std() > 5  # axes and curves, not an empty page


def test_no_log(tmp_path):
    with pytest.raises(InputError, match='holds no log of a training'):
        read_scalars(tmp_path)
