"""The settings of a training, and those in which two trainings differ."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from mmdet_attn.insertion import wraps

# What mmengine builds or reads, and what influences the result.
SECTIONS = (
    'model',
    'data_preprocessor',
    'train_dataloader',
    'val_dataloader',
    'val_evaluator',
    'train_cfg',
    'val_cfg',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
    'randomness',
    'compile',
    'efficient_conv_bn_eval',
)
# Parts of these names have no influence, or are facts of their own.
QUIET = {
    '_scope_',
    'backend_args',
    'dynamic_intervals',
    'num_workers',
    'palette',
    'persistent_workers',
    'pin_memory',
    'prefetch_factor',
    'seed',
    'val_begin',
    'val_interval',
}
PATHS = {'ann_file', 'data_prefix', 'data_root'}
# A detector copies these from its own while it is built.
COPIED = re.compile(r'model\.\w+_head\.(train|test)_cfg')
ATTENTION = re.compile(r'(.*\.)?(plugins|dcn|stage_with_dcn)(\..*)?')


class Difference(NamedTuple):
    """A setting that differs. None is a setting that is not there."""

    key: str
    here: Any
    there: Any

    @property
    def of_attention(self) -> bool:
        """Whether attention itself brings it along."""
        return ATTENTION.fullmatch(self.key) is not None


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any]
) -> list[Difference]:
    """Every setting in which two trainings differ.

    Args:
        here: The facts of a training.
        there: The facts of the other one.
    """
    return compare(settings(here), settings(there))


def compare(
    here: Mapping[str, Any], there: Mapping[str, Any]
) -> list[Difference]:
    """As `differences`, of what `settings` returns."""
    return [
        Difference(key, here.get(key), there.get(key))
        for key in dict.fromkeys([*here, *there])
        if here.get(key) != there.get(key)
    ]


def settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """All that may influence the result of a training, by dotted keys.

    Paths of data do not count where the facts have the SHA-256 of the
    annotation files. The images are not compared.

    Args:
        facts: What `read_facts` returns.
    """
    weights = facts['weights'] or {}
    found = {
        'seed': facts['seed'],
        'weights.init': _file(weights, 'init'),
        'weights.load_from': _file(weights, 'load_from'),
        'plugins.start': _starts(facts['plugins']),
        'processes': facts['processes'],
        'lr_scale': facts['lr_scale'],
        'iterations_per_epoch': facts['schedule']['iterations_per_epoch'],
        'device': facts['device'],
    }
    for name, version in (facts['versions'] or {}).items():
        found[f'versions.{name}'] = version
    known = facts.get('annotations') or {}
    for split, digest in known.items():
        found[f'annotations.{split}'] = digest and f'sha256 {digest[:8]}'
    for section in SECTIONS:
        part = facts['config'].get(section)
        if section == 'model':
            part = _without_wrappers(part)
        by_content = known.get(section.partition('_')[0])
        found.update(
            _flat(section, part, QUIET | PATHS if by_content else QUIET)
        )
    return {key: value for key, value in found.items() if value is not None}


def _file(weights: Mapping, key: str) -> str | None:
    """The name of a file of weights and the start of its SHA-256."""
    address, digest = weights.get(key), weights.get(f'{key}_sha256')
    if address and digest:
        return f'{PurePath(address).name} (sha256 {digest[:8]})'
    return address


def _starts(plugins: list[Mapping] | None) -> str | None:
    """How many plugins start in which way."""
    count = Counter(plugin['start'] or 'unknown' for plugin in plugins or ())
    return ', '.join(f'{n} {start}' for start, n in count.items()) or None


def _without_wrappers(part: Any) -> Any:
    """A config of a model in which hosts have their plugins themselves."""
    if isinstance(part, Mapping):
        part = {key: _without_wrappers(value) for key, value in part.items()}
        return _add(part['host'], part['plugins']) if wraps(part) else part
    if not isinstance(part, list):
        return part
    part = [_without_wrappers(item) for item in part]
    added = [item for item in part if _is_attention(item)]
    if not added:
        return part
    own = [item for item in part if item not in added]
    own[0] = _add(own[0], added)
    return own[0] if len(own) == 1 else own


def _is_attention(item: Any) -> bool:
    kind = str(item.get('type')) if isinstance(item, Mapping) else ''
    return kind.endswith('AttentionNeck')


def _add(host: Mapping, plugins: list) -> dict:
    return {**host, 'plugins': [*(host.get('plugins') or ()), *plugins]}


def _flat(key: str, value: Any, quiet: set[str]) -> Iterator[tuple[str, Any]]:
    last = key.split('.')[-1]
    if last in quiet or COPIED.fullmatch(key):
        return
    if last == 'type':
        # A scope in front and our own blocks leave a network as it is.
        value = str(value).split('.')[-1].removeprefix('Attention')
    inner: list[tuple] = []
    if isinstance(value, Mapping):
        kind = str(value.get('type'))
        # Weights are a fact, and the launcher decides about that hook.
        if kind.endswith(('Pretrained', 'SyncBuffersHook')):
            return
        inner = [*value.items()]
    elif isinstance(value, list) and any(
        isinstance(item, (Mapping, list)) for item in value
    ):
        inner = [*enumerate(value)]
    else:
        yield key, value
    for name, child in inner:
        yield from _flat(f'{key}.{name}', child, quiet)
