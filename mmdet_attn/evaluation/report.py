"""Statistics of a COCO evaluation by class, as a table and as JSON."""

import json
from pathlib import Path

import numpy as np
from mmengine.evaluator import DumpResults

from mmdet_attn.errors import InputError, printable

COLUMNS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
SIZES = ('', 's', 'm', 'l')  # as COCOeval orders its area ranges


def statistics(evaluator, k: int | None = None) -> dict[str, float | None]:
    """AP and recall in full precision. None if there is no object to find.

    As in mmdet, they are taken at the last of `proposal_nums`. Only AP over
    all classes is pycocotools', which takes it at 100 detections.

    Args:
        evaluator: A `COCOeval` that has run.
        k: Index of a class. None is all classes.
    """
    p = evaluator.params
    index = slice(None) if k is None else k
    precision = evaluator.eval['precision'][:, :, index]  # T R [K] A M
    recall = evaluator.eval['recall'][:, index]  # T [K] A M
    found = {}
    if k is None:
        found['AP'] = _mean(evaluator.stats[:1])
    else:
        found['AP'] = _mean(precision[..., 0, -1])
    for threshold in (50, 75):
        t = p.iouThrs == threshold / 100
        found[f'AP{threshold}'] = _mean(precision[t][..., 0, -1])
    for a, size in enumerate(SIZES[1:], 1):
        found[f'AP{size}'] = _mean(precision[..., a, -1])
    for m, count in enumerate(p.maxDets):
        found[f'AR{count}'] = _mean(recall[..., 0, m])
    for a, size in enumerate(SIZES[1:], 1):
        found[f'AR{size}'] = _mean(recall[..., a, -1])
    return found


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def table(metric: str, found: dict) -> str:
    """A table with a row for each class, and the mean in the last row."""
    from terminaltables import AsciiTable  # comes with mmdet

    rows = {**found.get('classes', {}), 'all': found['all']}
    # There is a recall for each number of detections: show the first.
    recalls = [name for name in found['all'] if name.startswith('AR')]
    columns = [*COLUMNS, recalls[0], *recalls[-3:]]
    cells = [[metric, *columns]]
    for name, row in rows.items():
        numbers = [row[column] for column in columns]
        cells.append(
            [
                printable(name),
                *('-' if n is None else f'{n:.3f}' for n in numbers),
            ]
        )
    grid = AsciiTable(cells)
    grid.inner_footing_row_border = True
    return grid.table


def refuse_no_metric(runner, metrics: dict) -> None:
    """Refuse a test that measured nothing, though it should.

    Args:
        runner: mmengine's, after its test.
        metrics: What the test returned.

    Raises:
        InputError: There is no metric, or each is -1 or NaN.
    """
    wanted = [
        metric
        for metric in runner.test_evaluator.metrics
        if not isinstance(metric, DumpResults)
        and not getattr(metric, 'format_only', False)
    ]
    # COCO's way to say that there was nothing to find is -1.
    if wanted and all(v == -1 or v != v for v in metrics.values()):
        raise InputError(
            'the test gave no metric: the detector found nothing, or there '
            'are no annotations. Look at its detections with predict.py '
            '--score-thr 0, and at the annotation file.'
        )


def write_reports(runner) -> Path | None:
    """Write the reports of the metrics of a test beside its log.

    Returns:
        The file. None if no metric has a report, and in all processes but
            the first.
    """
    reports: dict[str, dict] = {}
    for metric in runner.test_evaluator.metrics:
        if getattr(metric, 'report', None):
            # Boxes and masks may be two metrics of one prefix.
            reports.setdefault(metric.prefix, {}).update(metric.report)
    if not reports:
        return None
    file = Path(runner.log_dir, f'{runner.timestamp}_metrics.json')
    file.write_text(json.dumps(reports, indent=1), encoding='utf-8')
    runner.logger.info(f'Metrics in full precision: {file}')
    return file
