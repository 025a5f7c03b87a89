"""Evaluate one detector on the same images again and again."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import Subset

from mmdet_attn.config_errors import config_errors
from mmdet_attn.errors import InputError
from mmdet_attn.evaluation.coco_metric import FastCocoMetric
from mmdet_attn.evaluation.config import coco_metrics
from mmdet_attn.study.matches import Matches, matches_of
from mmdet_attn.terminal import quiet

KINDS = {'bbox', 'segm'}


def build_detector(cfg: Config, device: str) -> Any:
    """The detector of a config, in eval mode."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    with config_errors(cfg):
        return MODELS.build(cfg.model).to(device).eval()


class Evaluation:
    """The images of the test split in an order by chance, and their metric.

    Args:
        cfg: A config with a COCO metric.
        images: How many images to take, at least 2; None is all.
        seed: Of the order.

    Raises:
        InputError: There is no COCO metric, or there are too few images.
    """

    def __init__(
        self, cfg: Config, images: int | None = None, seed: int = 0
    ) -> None:
        for metric in coco_metrics(cfg, 'test'):
            metric['type'] = 'mmdet_attn.FastCocoMetric'
        init_default_scope(cfg.get('default_scope') or 'mmdet')
        with config_errors(cfg), quiet(logging.WARNING):
            self.evaluator = Evaluator(cfg.test_evaluator)
            dataset: Any = DATASETS.build(cfg.test_dataloader.dataset)
        self.metrics = [
            metric
            for metric in self.evaluator.metrics
            if KINDS & {*getattr(metric, 'metrics', ())}
            and isinstance(metric, FastCocoMetric)
        ]
        if not self.metrics:
            raise InputError(
                'AP of boxes or masks is needed, and no evaluator of this '
                'config is a CocoMetric that measures it.'
            )
        count = len(dataset) if images is None else images
        if not 2 <= count <= len(dataset):
            raise InputError(
                f'--images must be from 2 to the {len(dataset)} images of '
                f'the validation set, got {count}.'
            )
        chance = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(dataset), generator=chance)[:count].tolist()
        self.images = count
        loader = {
            **cfg.test_dataloader,
            'dataset': Subset(dataset, order),
            'sampler': dict(type='DefaultSampler', shuffle=False),
            'batch_sampler': None,
        }
        with config_errors(cfg):
            self.loader = Runner.build_dataloader(loader)
        self.evaluator.dataset_meta = dataset.metainfo
        for metric in self.metrics if images else ():
            metric.img_ids = [
                dataset.get_data_info(index)['img_id'] for index in order
            ]

    def run(
        self,
        detector: Any,
        step: Callable[[int], None] = lambda images: None,
        next_batch: Callable[[], None] = lambda: None,
        keep: bool = False,
    ) -> tuple[dict[str, float], dict[str, Matches]]:
        """Evaluate a detector.

        Args:
            detector: The detector.
            step: Called after each batch with its number of images.
            next_batch: Called before each batch.
            keep: Whether to return the matches.

        Returns:
            AP of `bbox`, and of `segm` where masks are evaluated; what was
            matched for each.
        """
        for metric in self.metrics:
            metric.keep = keep
        for batch in self.loader:
            next_batch()
            with torch.no_grad():
                found = detector.test_step(batch)
            self.evaluator.process(data_samples=found, data_batch=batch)
            step(len(found))
        with quiet(logging.WARNING):
            self.evaluator.evaluate(self.images)
        aps: dict[str, float] = {}
        matches: dict[str, Matches] = {}
        for metric in self.metrics:
            for kind in KINDS & {*metric.metrics}:
                # Without a detection there is no report.
                every = metric.report.get(kind, {}).get('all', {'AP': 0.0})
                if every['AP'] is None:
                    raise InputError(
                        'The images that are evaluated have no annotations: '
                        'there is no AP.'
                    )
                aps[kind] = every['AP']
            for kind, engine in metric.evaluators.items():
                matches[kind] = matches_of(engine)
        return dict(sorted(aps.items())), matches
