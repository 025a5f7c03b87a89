"""Loss and AP over a training, from the log that mmengine writes."""

import json
from pathlib import Path

from mmdet_attn.errors import InputError

AP = ('coco/bbox_mAP', 'coco/segm_mAP')


def read_scalars(work_dir: str | Path) -> tuple[list[dict], list[dict]]:
    """Training and validation records of all runs in a work directory.

    Where a resumed run repeats a step, its record counts.

    Raises:
        InputError: There is no log of a training.
    """
    train: dict[int, dict] = {}
    val: dict[int, dict] = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                train[record['step']] = record
            elif any(key in record for key in AP):
                val[record['step']] = record
    if not train:
        raise InputError(f'{work_dir} holds no log of a training.')
    return list(train.values()), list(val.values())


def plot_curves(work_dir: str | Path, file: str | Path) -> Path:
    """Draw loss and AP over iterations to a PNG."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    train, val = read_scalars(work_dir)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    steps = [r['step'] for r in train]
    left.plot(steps, [r['loss'] for r in train], color='black', label='total')
    for part in (k for k in train[-1] if k.startswith('loss_')):
        left.plot(steps, [r.get(part) for r in train], lw=1, label=part)
    left.set(xlabel='iteration', ylabel='loss', title='training loss')
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    for key in AP:
        # Validation is logged by epoch; its place among the iterations:
        points = [(_iteration(r, train), r[key]) for r in val if key in r]
        if points:
            label = key.removeprefix('coco/').replace('_mAP', ' AP')
            right.plot(*zip(*points, strict=True), marker='o', label=label)
            right.annotate(
                f'{points[-1][1]:.3f}',
                points[-1],
                (-10, 8),
                textcoords='offset points',
            )
    right.set(
        xlabel='iteration',
        ylabel='AP (IoU 0.50 to 0.95)',
        title='validation',
        ylim=(0, 1),
    )
    right.legend(frameon=False, loc='upper left')
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return Path(file)


def _iteration(record: dict, train: list[dict]) -> int:
    """Iteration at which an epoch's validation ran."""
    steps = [r['step'] for r in train if r.get('epoch') == record['step']]
    return max(steps, default=record['step'])
