"""The COCO metrics of a config, and the engine behind them."""

from mmengine.config import Config

from mmdet_attn.datasets.coco_folder import dicts_in
from mmdet_attn.errors import InputError

BACKENDS = ('faster', 'pycocotools')


def coco_metrics(cfg: Config, *splits: str) -> list[dict]:
    """The COCO metrics of some splits, ours and mmdet's."""
    return [
        metric
        for split in splits
        for metric in dicts_in(cfg.get(f'{split}_evaluator'))
        if _name(metric) in ('CocoMetric', 'FastCocoMetric')
    ]


def set_eval_backend(cfg: Config, backend: str) -> None:
    """Replace mmdet's COCO metric by ours, with this backend.

    Raises:
        InputError: The config has no COCO metric.
    """
    metrics = coco_metrics(cfg, 'val', 'test')
    if not metrics:
        raise InputError(
            f'--eval-backend {backend}: no evaluator of this config is '
            'CocoMetric or mmdet_attn.FastCocoMetric.'
        )
    for metric in metrics:
        metric.update(type='mmdet_attn.FastCocoMetric', backend=backend)


def _name(node: dict) -> str:
    kind = node.get('type')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]
