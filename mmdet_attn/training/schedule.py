"""The length of a training: scale its schedule, and judge its warm-up."""

from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from mmdet_attn.datasets.coco_folder import dicts_in
from mmdet_attn.errors import InputError

# What schedulers count in epochs, or in iterations where by_epoch is False.
COUNTS = (
    'T_max',
    'begin',
    'end',
    'milestones',
    'periods',
    'step_size',
    'total_steps',
)
WARM_UPS = ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR')


def scale_epochs(cfg: Config, epochs: int) -> None:
    """Give a training another length, and all that it counts in epochs.

    The learning rates of each part of the training are as before. A warm-up
    that is counted in iterations, and the intervals of validation and
    checkpoints, become shorter in a shorter training and are not longer in a
    longer one. What is left is at least one epoch or iteration.

    Args:
        cfg: A config of a training by epochs, which is changed.
        epochs: The new length.

    Raises:
        InputError: The training is not counted in epochs.
    """
    if epochs < 1:
        raise InputError(f'--epochs must be at least 1, got {epochs}.')
    loop = cfg.get('train_cfg') or {}
    old = loop.get('max_epochs')
    if type(old) is not int or old < 1:
        raise InputError(
            '--epochs: this config has no train_cfg.max_epochs, so it may '
            'count its training in iterations: set train_cfg.max_iters and '
            'what depends on it in param_scheduler by --cfg-options.'
        )

    def part(count: int) -> int:
        return max(1, round(count * epochs / old)) if count > 0 else count

    def shorter(count: int) -> int:
        return min(count, part(count))

    def before_end(count: int) -> int:
        return min(part(count), epochs - 1)

    loop['max_epochs'] = epochs
    _change(loop, 'val_interval', shorter)
    _change(loop, 'val_begin', part)
    if loop.get('dynamic_intervals'):
        loop['dynamic_intervals'] = [
            (part(epoch), shorter(interval))
            for epoch, interval in loop['dynamic_intervals']
        ]
    for node in dicts_in(cfg.get('param_scheduler')):
        _scale_scheduler(node, epochs, part, shorter)
    hooks = [cfg.get('default_hooks'), cfg.get('custom_hooks')]
    for node in dicts_in([hooks, cfg.get('model')]):
        for key in node:
            if 'epoch' in key:  # such as switch_epoch, num_last_epochs
                _change(node, key, before_end)
        kind = str(node.get('type'))
        if kind.endswith('CheckpointHook') and node.get('by_epoch', True):
            _change(node, 'interval', shorter)
            _change(node, 'save_begin', part)


def _change(node: dict, key: str, by: Callable[[int], int]) -> None:
    """Change a number, or a list of them, if it is there."""
    value = node.get(key)
    if isinstance(value, (list, tuple)):
        node[key] = [by(x) if type(x) is int else x for x in value]
    elif type(value) is int:
        node[key] = by(value)


def _scale_scheduler(
    node: dict,
    epochs: int,
    part: Callable[[int], int],
    shorter: Callable[[int], int],
) -> None:
    begin, end, period = (node.get(key) for key in ('begin', 'end', 'T_max'))
    by_epoch = node.get('by_epoch', True)
    kind = str(node.get('type')).rpartition('.')[2]
    warms_up = kind in WARM_UPS and not by_epoch
    for key in COUNTS:
        _change(node, key, shorter if warms_up else part)
    if begin and by_epoch:
        node['begin'] = min(node['begin'], epochs - 1)
    if type(end) is int:
        begins = node.get('begin', 0)
        node['end'] = max(node['end'], begins + 1)
        if period == end - (begin or 0):
            node['T_max'] = node['end'] - begins


class WarmUpHook(Hook):
    """Warn where the warm-up takes more than a tenth of a training."""

    def before_train(self, runner: Any) -> None:
        groups = runner.param_schedulers or []
        for group in groups.values() if isinstance(groups, dict) else [groups]:
            for index, scheduler in enumerate(group):
                first = getattr(scheduler, 'start_factor', 1)
                first = getattr(scheduler, 'factor', first)
                last = getattr(scheduler, 'end_factor', 1)
                warms_up = scheduler.begin == 0 and (
                    first < last or 'Warmup' in type(scheduler).__name__
                )
                length = scheduler.end
                if scheduler.by_epoch:
                    length *= len(runner.train_dataloader)
                tenth = max(runner.max_iters // 10, 1)
                if warms_up and length > tenth:
                    runner.logger.warning(
                        f'The warm-up takes {length} iterations, more than a '
                        f'tenth of the {runner.max_iters} iterations of this '
                        f'training ({len(runner.train_dataloader)} in an '
                        f'epoch). Set by_epoch=False and end={tenth} in '
                        f'param_scheduler.{index}, or train longer (--epochs).'
                    )
