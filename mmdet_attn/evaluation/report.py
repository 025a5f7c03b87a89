"""Statistics of a COCO evaluation by class: a table, and a JSON."""

import json
from pathlib import Path

import numpy as np

COLUMNS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
SIZES = ('', 's', 'm', 'l')  # as COCOeval orders its area ranges


def statistics(evaluator, k: int | None = None) -> dict[str, float | None]:
    """AP and recall in full precision; None where there is nothing to find.

    As mmdet has them: everything at the last of ``proposal_nums``, but AP
    over all classes, which is pycocotools' and therefore at 100 detections.

    Args:
        evaluator: A ``COCOeval`` that has run.
        k: Index of a class; None: all.
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
    """Classes in rows, the mean over them last."""
    from terminaltables import AsciiTable  # comes with mmdet

    rows = {**found.get('classes', {}), 'all': found['all']}
    # Of the recalls at several numbers of detections, the first.
    recalls = [name for name in found['all'] if name.startswith('AR')]
    columns = [*COLUMNS, recalls[0], *recalls[-3:]]
    cells = [[metric, *columns]]
    for name, row in rows.items():
        numbers = [row[column] for column in columns]
        cells.append(
            [name, *('-' if n is None else f'{n:.3f}' for n in numbers)]
        )
    grid = AsciiTable(cells)
    grid.inner_footing_row_border = True
    return grid.table


def write_reports(runner) -> Path | None:
    """Put what the metrics of a test found beside its log.

    Returns:
        The file; None in all processes but the first, and where no metric
        has a report.
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
