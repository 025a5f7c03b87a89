"""Stop a training whose numbers are NaN or infinite."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.weights.load import not_finite

NAMED = 3


class FiniteHook(Hook):
    """Stop all processes at the iteration whose numbers are not finite.

    The losses and the gradients are checked before the weights change, the
    weights before they are saved. So no checkpoint is replaced by one with
    such values.

    Gradients of mixed precision with a loss scale are not checked: the
    scaler leaves out a step with infinite gradients.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        self.losses: dict[str, Tensor] = {}
        model = _unwrapped(runner)
        if isinstance(model, BaseModel):
            model.register_forward_hook(self._remember)
        wrapper = runner.optim_wrapper
        for one in getattr(wrapper, 'optim_wrappers', {'': wrapper}).values():
            one.step = partial(self._step, runner, one, one.step)

    def before_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None
    ) -> None:
        self.batch = data_batch

    def _remember(self, model: Any, inputs: Any, output: Any) -> None:
        if model.training and isinstance(output, dict):
            with torch.no_grad():
                self.losses = dict(model.parse_losses(output)[1])

    def _step(
        self, runner: Any, wrapper: OptimWrapper, step: Any, **options: Any
    ) -> None:
        checked = [self.losses.get('loss')]
        if type(wrapper) is OptimWrapper:  # without a loss scale
            groups = wrapper.optimizer.param_groups
            checked += [p.grad for group in groups for p in group['params']]
        self._check(runner, checked)
        step(**options)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        # Of an iteration without a step: accumulated gradients, or a scaler.
        if self.losses:
            self._check(runner, [self.losses.get('loss')])

    def _check(self, runner: Any, values: list) -> None:
        """Stop in all processes if a value is not finite in one of them."""
        losses, self.losses = self.losses, {}
        # NaN and infinity stay in a sum; that of half precision overflows.
        sums = [
            value.detach().sum(dtype=torch.float32)
            for value in values
            if torch.is_tensor(value)
        ]
        if not sums:
            return
        total = torch.stack(sums).sum()
        dist.all_reduce(total)
        if not total.isfinite():
            place = f'iteration {runner.iter + 1} (epoch {runner.epoch + 1})'
            self._stop(runner, place, losses)

    def before_saving(self, runner: Any) -> None:
        """Check the weights; our `CheckpointHook` calls this."""
        bad = not_finite(_unwrapped(runner).state_dict())
        found = torch.tensor(float(len(bad)), device=_device(runner))
        dist.all_reduce(found)
        if found:
            self._stop(runner, 'the network that is to be saved', {})

    def _stop(
        self, runner: Any, place: str, losses: Mapping[str, Tensor]
    ) -> None:
        model = _unwrapped(runner)
        state = model.state_dict()
        grads = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        bad = [
            f'{name} {float(value)}'
            for name, value in losses.items()
            if not value.isfinite().all()
        ]
        images = ', '.join(_images(self.batch)) or 'unknown'
        ranks = dist.all_gather_object((bad, images))
        reports = [
            f'Losses: {", ".join(bad) or "finite"}. Images: {images}.'
            for bad, images in [r for r in ranks if r[0]] or ranks
        ]
        rates = {
            rate
            for name, values in runner.optim_wrapper.get_lr().items()
            if not name.endswith('base_lr')
            for rate in values
        }
        known = [
            hook.last_ckpt
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook)
        ]
        if runner._resume:
            known.append(runner._load_from)
        good = next(filter(None, known), 'none')
        facts = [
            *reports,
            f'Weights: {_some(not_finite(state), len(state))}.',
            f'Gradients: {_some(not_finite(grads), len(grads))}.',
            f'Learning rate: {", ".join(map(str, sorted(rates)))}.',
            f'Last good checkpoint: {good}.',
        ]
        raise InputError(
            f'{place} has values that are NaN or infinite, and the training '
            'stops.\n  '
            + '\n  '.join(facts)
            + '\n  Look at the images, or train with a lower learning rate '
            '(a resumed training keeps the old one) or with '
            'optim_wrapper.clip_grad. --resume carries on from the last good '
            'checkpoint, --allow-nan turns this check off.'
        )


def _unwrapped(runner: Any) -> nn.Module:
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def _device(runner: Any) -> torch.device:
    return next(_unwrapped(runner).parameters()).device


def _some(names: list[str], count: int) -> str:
    """The first names and how many there are."""
    if not names:
        return f'all {count} finite'
    more = ', ...' if len(names) > NAMED else ''
    return (
        f'{len(names)} of {count} not finite '
        f'({", ".join(names[:NAMED])}{more})'
    )


def _images(batch: Any) -> Iterator[str]:
    """The files of the images in a batch, whatever its form."""
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _images(part)
    elif hasattr(batch, 'img_path'):
        yield str(batch.img_path)
