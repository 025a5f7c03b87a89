"""The configs of a study: written before anything starts, and checked."""

import copy
import itertools
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmdet_attn.config_checks import walk
from mmdet_attn.config_files import CONFIGS, load_config_file, read_dumped
from mmdet_attn.errors import InputError
from mmdet_attn.study.plan import NONE, Run, Study
from mmdet_attn.study.status import FAILED

OWN = 'mmdet_attn.'
PLACES = ('at', 'place', 'position', 'stages', 'blocks')


def make_config(study: Study, run: Run) -> Config:
    """The config of a training, with its data, attention and seed.

    Raises:
        InputError: The base, the attention, an option or the data cannot be
            used.
    """
    from mmdet_attn.cli import load_config
    from mmdet_attn.commands.train import make_parser
    from mmdet_attn.weights.start import start_from

    changes = study.changes_of(run)
    words = [run.base['config'], '--work-dir', str(study.work_dir(run))]
    if study.data_root is not None:
        words += ['--data-root', study.data_root]
    if 'image_scale' in changes:
        words += ['--image-scale', *map(str, changes['image_scale'])]
    args = make_parser().parse_args(words)
    args.cfg_options = changes['options']
    args.epochs = changes.get('epochs')
    cfg = load_config(
        args, 'train', 'val', change=partial(_change, run, args.epochs)
    )
    if 'load_from' in changes:
        strict = not changes.get('non_strict', False)
        start_from(cfg, str(changes['load_from']), strict)
    return cfg


def _change(run: Run, epochs: int | None, cfg: Config) -> None:
    from mmdet_attn.training.schedule import scale_epochs

    if epochs is not None:
        scale_epochs(cfg, epochs)
    remove_attention(cfg)
    add_attention(cfg, run.attention)
    cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': run.seed}


def remove_attention(cfg: Config) -> None:
    """Take attention out of the backbone and the neck of a config."""
    from mmdet_attn.insertion import wraps

    for part in ('backbone', 'neck'):
        node = cfg.model.get(part)
        if isinstance(node, list):
            kept = [n for n in node if 'AttentionNeck' not in str(n['type'])]
            cfg.model[part] = kept[0] if len(kept) == 1 else kept
            continue
        while node and wraps(node):
            node = node['host']
        if node:
            cfg.model[part] = node
            if node.get('plugins') is not None:
                node['plugins'] = None
            if str((node.get('dcn') or {}).get('type')).startswith(OWN):
                node.pop('dcn')
                node.pop('stage_with_dcn')


def add_attention(cfg: Config, entry: Mapping[str, Any]) -> None:
    """Put the attention of a study's entry into the backbone of a config."""
    if entry['name'] == NONE:
        return
    backbone = cfg.model.backbone
    if 'plugin' not in entry:
        _add_known(cfg, entry['name'])
        return
    plugin = {key: entry[key] for key in PLACES if key in entry}
    plugin['cfg'] = entry['plugin']
    if 'at' in plugin:
        cfg.model.backbone = ConfigDict(
            type='mmdet_attn.insert', host=backbone, plugins=[plugin]
        )
        return
    plugin.setdefault('position', 'after_conv3')
    backbone['plugins'] = [ConfigDict(plugin)]
    _use_attention_resnet(backbone)


def _add_known(cfg: Config, name: str) -> None:
    """Put attention in as a file of `configs/_base_/attention` says."""
    file = load_config_file(CONFIGS / '_base_' / 'attention' / f'{name}.py')
    attention, backbone = file.attention.to_dict(), cfg.model.backbone
    if 'plugin' in attention:
        raise InputError(
            f'attention {name} is part of a neck, and a study puts attention '
            'into the backbone: give a plugin, and at.'
        )
    if 'attention_decay' in file:
        change = {'optim_wrapper.paramwise_cfg': file.attention_decay}
        cfg.merge_from_dict(change)
    if attention.pop('_delete_', False):
        cfg.model.backbone = ConfigDict(host=backbone, **attention)
        return
    # All start from the weights of the base.
    if not (backbone.get('init_cfg') and attention.get('init_cfg')):
        attention.pop('init_cfg', None)
    # A list replaces nothing.
    backbone.pop('plugins', None)
    cfg.merge_from_dict({'model.backbone': attention})
    _use_attention_resnet(cfg.model.backbone)


def _use_attention_resnet(backbone: dict) -> None:
    """Let a ResNet take plugins in any place, as our configs do."""
    if backbone['type'] in ('ResNet', 'mmdet.ResNet'):
        backbone['type'] = 'mmdet_attn.AttentionResNet'


def write_configs(study: Study, configs: Mapping[str, Config]) -> None:
    """Write the configs of all trainings, as the trainings will read them.

    Raises:
        InputError: A training has begun with another config.
    """
    (study.folder / 'configs').mkdir(parents=True, exist_ok=True)
    for run in study.runs:
        file = study.config(run)
        new = file.with_suffix('.new')
        new.write_text(configs[run.name].pretty_text)
        if file.is_file() and has_begun(study.work_dir(run)):
            _refuse_change(study, run, _leaves(file), _leaves(new))
    for run in study.runs:
        study.config(run).with_suffix('.new').replace(study.config(run))


def has_begun(folder: Path) -> bool:
    """Whether a training has done what another config would waste."""
    failed = (folder / FAILED).exists()
    facts = (folder / 'facts.json').exists() and not failed
    return facts or any(folder.glob('*.pth'))


def _leaves(file: Path) -> dict[str, Any]:
    return {
        key: value
        for key, value in walk(read_dumped(file))
        if not isinstance(value, (Mapping, list))
    }


def _refuse_change(
    study: Study, run: Run, before: Mapping, after: Mapping
) -> None:
    differs = [
        f'{key} is {after.get(key)}, and was {before.get(key)}'
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]
    if differs:
        raise InputError(
            f'{run.name} has begun with another config: '
            f'{"; ".join(differs[:3])}. Give the study another name, or '
            f'delete {study.work_dir(run)}.'
        )


def check_configuration(cfg: Config, run: Run, local: bool) -> dict[str, Any]:
    """Build a detector, count what it costs, and train two steps.

    Args:
        cfg: The config of a training.
        run: The training.
        local: Whether it will run on this machine. Otherwise no step is
            trained.

    Returns:
        `parameters`, `gflops` and `estimate`, the seconds of a training.
        None is unknown.

    Raises:
        InputError: It cannot be built, its data are missing, or a training
            without attention has some.
    """
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from mmdet_attn.config_checks import check_files
    from mmdet_attn.config_errors import config_errors
    from mmdet_attn.cost.complexity import complexity
    from mmdet_attn.weights.plugins import plugins_of

    # mmdet writes into the config of what it builds.
    cfg = copy.deepcopy(cfg)
    check_files(cfg, 'train', 'val')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with config_errors(cfg):
        detector = MODELS.build(cfg.model)
    found = plugins_of(detector)
    if (run.attention['name'] == NONE) != (not found):
        there = ', '.join(list(found)[:3]) or 'no plugin'
        raise InputError(
            f'{run.name} should have '
            f'{"no attention" if found else run.attention["name"]}, and it '
            f'has {there}: change the base {run.base["config"]}.'
        )
    try:
        gflops = complexity(cfg).gflops
    except InputError:
        gflops = None  # a detector that cannot be counted
    return {
        'parameters': sum(p.numel() for p in detector.parameters()),
        'gflops': gflops,
        'estimate': estimate(cfg, detector) if local else None,
    }


def estimate(cfg: Config, detector: Any) -> float | None:
    """The seconds of a training, from its second step. None if unknown."""
    batches, images, val = load_batches(cfg)
    step = step_seconds(detector, batches)
    size = cfg.train_dataloader.get('batch_size', 1)
    epochs = cfg.train_cfg.get('max_epochs')
    if epochs is None:
        return None
    # Forward alone takes about a third of a step.
    evaluations = epochs // cfg.train_cfg.get('val_interval', 1)
    steps = epochs * images / size + evaluations * val / size / 3
    return step * steps


def step_seconds(detector: Any, batches: list) -> float:
    """Train two steps on real images; the seconds of the second."""
    import torch
    from mmengine.device import get_device
    from mmengine.logging import MessageHub

    # Some augmentations of batches count iterations.
    MessageHub.get_current_instance().update_info('iter', 0)
    device = get_device()
    detector = detector.to(device).train()
    seconds = 0.0
    for batch in batches:
        start = time.perf_counter()
        data = detector.data_preprocessor(batch, True)
        loss, _ = detector.parse_losses(detector(**data, mode='loss'))
        loss.backward()
        if device == 'cuda':
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds


def load_batches(cfg: Config) -> tuple[list, int, int]:
    """Two batches, and the numbers of training and validation images."""
    from mmengine.runner import Runner

    cfg = Config(cfg.to_dict())
    loaders = []
    for split in ('train', 'val'):
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            loader.update(num_workers=0, persistent_workers=False)
            loader.pop('prefetch_factor', None)
            loaders.append(Runner.build_dataloader(loader, seed=0))
    batches = list(itertools.islice(itertools.cycle(loaders[0]), 2))
    images, *rest = [len(loader.dataset) for loader in loaders]
    return batches, images, sum(rest)
