"""Loss and AP read from mmengine's logs, over resumed runs, and drawn."""

import json
from unittest import mock

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
    with mock.patch('mmdet_attn.study.results.curves._save') as save:
        plot_curves(tmp_path, 'x.png')
    left, right = save.call_args.args[0].axes
    total, part = left.lines
    assert total.get_ydata().tolist() == [4.0, 2.5, 2.0]
    assert part.get_ydata().tolist() == [2.0, 1.25, 1.0]
    assert right.lines[0].get_xydata().tolist() == [[1, 0.25]]


def test_no_log(tmp_path):
    with pytest.raises(InputError, match='holds no log of a training'):
        read_scalars(tmp_path)
