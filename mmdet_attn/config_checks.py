"""Refuse a config, or options for it, before anything is built of it."""

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmdet_attn.errors import InputError
from mmdet_attn.weights.save import check_folder

RUNNER = set(inspect.signature(Runner).parameters) - {'cfg'}
# What mmengine, mmdet and these tools read besides.
READ = RUNNER | {
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}
LOADER = {*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch'}
# What may be added to sections that are read key by key. To other sections
# anything may be added: what is built of them refuses what it does not know.
TESTED = {
    'allowed_border',
    'debug',
    'mask_thr_binary',
    'max_per_img',
    'min_bbox_size',
    'nms',
    'nms_pre',
    'pos_weight',
    'score_thr',
}
KEYS = {
    'auto_scale_lr': {'base_batch_size', 'enable'},
    'env_cfg': {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
    'plugins': {'at', 'blocks', 'cfg', 'place', 'position', 'stages'},
    'randomness': {'deterministic', 'diff_rank_seed', 'seed'},
    **dict.fromkeys(('rcnn', 'rpn', 'rpn_proposal'), TESTED),
    'test_cfg': TESTED,
    'train_cfg': {'by_epoch', 'max_epochs', 'val_interval', *TESTED},
    **dict.fromkeys(
        ('test_dataloader', 'train_dataloader', 'val_dataloader'), LOADER
    ),
}
# Higher than for a hint: no config of mmdet has a variable so near.
MISSPELT = 0.87


def near(
    word: str, words: Iterable[str], prefix: str = '', cutoff: float = 0.6
) -> str:
    """A question that names the nearest words, or nothing."""
    found = get_close_matches(word, sorted(words), cutoff=cutoff)
    names = ' or '.join(prefix + name for name in found)
    return f'; did you mean {names}?' if found else ''


def check_names(cfg: Config) -> None:
    """Refuse a misspelt section, which would be read by nobody.

    Raises:
        InputError: A variable of the config is nearly the name of a section.
    """
    for key in cfg:
        if key not in READ and (hint := near(key, RUNNER, cutoff=MISSPELT)):
            raise InputError(
                f'the config has {key}, which nothing reads{hint}'
            )


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse options that would change nothing.

    An argument that the config leaves out may be set where a `type` says
    what is built; whoever builds it knows whether it has the argument.

    Raises:
        InputError: A key does not exist, and nothing would read it.
    """
    for key, value in options.items():
        if str(value).startswith('{'):
            raise InputError(
                f'--cfg-options {key}={value} would be a text: set each of '
                f'its keys, as in {key}.type=...'
            )
        top, *rest = key.split('.')
        if top not in READ:
            if top in cfg:
                used = [p for p, _ in walk(cfg) if p.endswith(f'.{top}')]
                hint = f': set {", ".join(used[:3])}' if used else ''
                raise InputError(
                    f'--cfg-options {key}: {top} is a variable of the config '
                    f'file; what was made of it would not change{hint}. '
                    '--new-option sets it all the same.'
                )
            _refuse(key, key, READ)
        node, path = cfg.get(top), top
        for part in rest:
            node = _child(node, path, part, key)
            path += f'.{part}'


def _child(node: Any, path: str, part: str, key: str) -> Any:
    """What a part of a key names; None is new."""
    section = [name for name in path.split('.') if not name.isdigit()][-1]
    known = KEYS.get(section)
    if isinstance(node, (list, tuple)):
        if part.isdigit() and int(part) < len(node):
            return node[int(part)]
        raise InputError(
            f'--cfg-options {key}: {path} is a list of {len(node)}, counted '
            f'from 0, and has no {part}.'
        )
    if node is not None and not isinstance(node, Mapping):
        raise InputError(
            f'--cfg-options {key}: {path} is {node!r} and has no {part}.'
        )
    node = node or {}
    if known and not ({part, 'type'} & node.keys() or part in known):
        _refuse(key, part, {*node, *known}, path)
    return node.get(part)


def _refuse(key: str, part: str, known: set[str], path: str = '') -> NoReturn:
    """Refuse a key, with the nearest of those that its section may have."""
    first, *rest = part.split('.')
    if found := get_close_matches(first, sorted(known), 1):
        start = [path] if path else []
        hint = f'the nearest is {".".join([*start, *found, *rest])}'
    else:
        hint = f'{path or "a config"} may have {", ".join(sorted(known))}'
    raise InputError(
        f'--cfg-options {key}: there is no such key, and it would change '
        f'nothing; {hint}. --new-option sets it all the same.'
    )


def walk(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Every dotted key and its value."""
    if isinstance(node, (list, tuple)):
        items: Any = enumerate(node)
    else:
        items = node.items() if isinstance(node, (Mapping, Config)) else ()
    for key, value in items:
        inside = f'{path}.{key}' if path else str(key)
        yield inside, value
        yield from walk(value, inside)


def check_parts(cfg: Config, splits: Iterable[str]) -> None:
    """Refuse a config that lacks a section.

    Args:
        cfg: The config.
        splits: Of `train`, `val` and `test` what a command runs.

    Raises:
        InputError: A section is missing, or there is nothing to train.
    """
    for split in splits:
        last = 'optim_wrapper' if split == 'train' else f'{split}_evaluator'
        wanted = ['model', f'{split}_dataloader', f'{split}_cfg', last]
        lacking = [key for key in wanted if cfg.get(key) is None]
        if split == 'val' and lacking == wanted[1:]:
            continue
        if lacking:
            hint = '; without validation, all three are None'
            raise InputError(
                f'the config has no {" and no ".join(lacking)}: {split} '
                f'needs {", ".join(wanted)}{hint if split == "val" else ""}.'
            )
        for key in ('max_epochs', 'max_iters'):
            value = dict(walk(cfg[f'{split}_cfg'])).get(key, 1)
            if type(value) is not int or value < 1:
                raise InputError(
                    f'{split}_cfg.{key} must be a positive integer, got '
                    f'{value!r}.'
                )


def check_unchanged(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse options that `--data-root` has overwritten.

    Raises:
        InputError: The config has another value than an option gave.
    """
    values = dict(walk(cfg))
    for key, value in options.items():
        if values.get(key, value) != value:
            raise InputError(
                f'--cfg-options {key}={value} contradicts --data-root, which '
                f'sets it to {values[key]}: leave one of them out.'
            )


def check_files(cfg: Config, *splits: str) -> None:
    """Refuse data that are not there and a work directory that cannot be.

    Data behind a storage backend of mmengine are not looked for.

    Raises:
        InputError: An annotation file or a folder of images is missing, or
            nothing can be written to the work directory.
    """
    check_folder(cfg.work_dir)
    wanted = []
    for split in splits:
        for part in ('dataloader', 'evaluator'):
            for _, node in walk([cfg.get(f'{split}_{part}')]):
                if not isinstance(node, Mapping) or node.get('backend_args'):
                    continue
                root = node.get('data_root') or ''
                names = [node.get('ann_file')]
                if isinstance(prefix := node.get('data_prefix'), Mapping):
                    names += prefix.values()
                wanted += [os.path.join(root, name) for name in names if name]
    lacking = [
        name
        for name in dict.fromkeys(wanted)
        if '://' not in name and not Path(name).exists()
    ]
    if lacking:
        raise InputError(
            f'the data set lacks {", ".join(lacking)}: put it there, or name '
            'a folder in COCO format (train/, val/, annotations/instances_'
            '{train,val}.json) with --data-root DIR.'
        )
