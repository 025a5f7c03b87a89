"""The settings in which two trainings differ."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from mmdet_attn.study.results.attention import entries, short

# Attention itself brings these along: they do not make a gain unfair.
OF_ATTENTION = ('attention', 'kernel sizes', "attention's start")
SECTIONS = (
    'model',
    'train_dataloader',
    'val_dataloader',
    'val_evaluator',
    'custom_hooks',
)
# Each is a fact of its own, or has no influence on AP.
SILENT = {
    'model.backbone.dcn',
    'model.backbone.frozen_stages',
    'model.backbone.init_cfg',
    'model.backbone.norm_cfg',
    'model.backbone.norm_eval',
    'model.backbone.plugins',
    'model.backbone.stage_with_dcn',
    'model.backbone.type',
    'model.init_cfg',
    'train_dataloader.batch_size',
    'val_dataloader.batch_size',
}
QUIET = {
    '_scope_',
    'ann_file',
    'backend_args',
    'data_prefix',
    'data_root',
    'metainfo',
    'num_workers',
    'persistent_workers',
    'pin_memory',
    'prefetch_factor',
    'scale',
}


class Difference(NamedTuple):
    """One setting, with its value in a training and in another one."""

    what: str
    here: str
    there: str


def differences(
    here: Mapping[str, str], there: Mapping[str, str]
) -> list[Difference]:
    """The facts that both have, with different values."""
    return [
        Difference(what, here[what], there[what])
        for what in here
        if what in there and here[what] != there[what]
    ]


def settings(cfg: Config) -> dict[str, str]:
    """Every setting of a config that is not among the facts, by its key."""
    found: dict[str, str] = {}
    for section in SECTIONS:
        part = cfg.get(section)
        if section == 'model':
            necks = entries(part.get('neck'))
            own = [
                {k: v for k, v in neck.items() if k != 'plugins'}
                for neck in necks
                if short(neck['type']) != 'AttentionNeck'
            ]
            part = {**part, 'neck': own}
        elif section == 'custom_hooks':
            # The launcher decides on this hook.
            part = [
                hook
                for hook in part or ()
                if short(hook['type']) != 'SyncBuffersHook'
            ]
        found.update(_flat(section, part))
    return found


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if key in SILENT or key.split('.')[-1] in QUIET:
        return
    if isinstance(value, Mapping):
        inner = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, (list, tuple)):
        inner = [(str(i), v) for i, v in enumerate(value)]
    else:
        yield key, str(value)
        return
    for name, child in inner:
        yield from _flat(f'{key}.{name}', child)


def all_differences(
    here: tuple[Mapping[str, str], Config],
    there: tuple[Mapping[str, str], Config],
) -> list[Difference]:
    """As `differences`, and every other setting that is different."""
    mine, other = settings(here[1]), settings(there[1])
    rest = [
        Difference(key, mine.get(key, 'not set'), other.get(key, 'not set'))
        for key in dict.fromkeys([*mine, *other])
        if mine.get(key) != other.get(key)
    ]
    return differences(here[0], there[0]) + rest
