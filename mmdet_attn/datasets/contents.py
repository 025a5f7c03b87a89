"""Check annotations and images of a config's COCO datasets before a start."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_attn.datasets.coco_check import (
    CocoFile,
    first_few,
    read_annotations,
    refuse_leaving,
)
from mmdet_attn.datasets.coco_folder import dicts_in
from mmdet_attn.datasets.image_check import bad_images
from mmdet_attn.errors import InputError

FOLDER = 'without_bad_images'  # in the work directory


def check_contents(
    cfg: Config, parts: tuple[str, ...], skip_bad_images: bool = False
) -> None:
    """Check every COCO dataset of a config, once on each node.

    Datasets of other formats, and those whose files are not on a local disk,
    are left alone, as is a dataset whose annotation file is missing.

    Args:
        cfg: A detection config. With `skip_bad_images`, its datasets and
            metrics are pointed to annotation files in its work directory
            that leave bad images out.
        parts: Its dataloaders, of `train`, `val` and `test`.
        skip_bad_images: Whether to leave out images that are missing or
            cannot be used, instead of refusing them.

    Raises:
        InputError: An annotation file or an image cannot be used.
    """
    # One process of a node checks. The others wait for it where they join.
    checks = os.environ.get('LOCAL_RANK', '0') == '0'
    masks = needs_masks(cfg)
    for part in parts:
        for number, (node, data) in enumerate(_coco_datasets(cfg, part)):
            file = Path(data.ann_file)
            new = Path(cfg.work_dir, FOLDER, f'{part}_{number}_{file.name}')
            new = new.resolve()
            if checks:
                bad = _check(cfg, part, node, data, masks)
                if skip_bad_images:
                    _write_without(file, new, bad)
                elif bad:
                    shown = [f'{name} ({why})' for name, why in bad.values()]
                    raise InputError(
                        f'{file}: {len(bad)} images cannot be used: '
                        f'{first_few(shown)}. Put them right, or leave them '
                        'out: --skip-bad-images.'
                    )
            if skip_bad_images:
                node['ann_file'] = str(new)
                for metric in dicts_in(cfg.get(f'{part}_evaluator')):
                    if Path(metric.get('ann_file') or '') == file:
                        metric['ann_file'] = str(new)


def needs_masks(cfg: Config) -> bool:
    """Whether a config trains or evaluates masks."""
    loaders = [cfg.get(f'{part}_dataloader') for part in ('train', 'val')]
    metrics = [cfg.get(f'{part}_evaluator') for part in ('val', 'test')]
    return any(step.get('with_mask') for step in dicts_in(loaders)) or any(
        'segm' in (metric.get('metric') or ()) for metric in dicts_in(metrics)
    )


def _coco_datasets(cfg: Config, part: str) -> Iterator[tuple[dict, Any]]:
    """Configs of the COCO datasets of a dataloader, and what they become."""
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    for node in dicts_in((cfg.get(f'{part}_dataloader') or {}).get('dataset')):
        kind: Any = node.get('type')
        if not isinstance(node.get('ann_file'), str):
            continue
        if isinstance(kind, str):
            kind = DATASETS.get(kind)
        if (
            not isinstance(kind, type)
            or not issubclass(kind, CocoDataset)
            # Those of other formats inherit from it, too.
            or any(
                getattr(kind, name) is not getattr(CocoDataset, name)
                for name in ('load_data_list', 'COCOAPI')
            )
        ):
            continue
        remote = (node.get('backend_args') or {}).get('backend', 'local')
        given = {k: v for k, v in node.items() if k not in ('type', '_scope_')}
        data = kind(**given | {'pipeline': [], 'lazy_init': True})
        if remote == 'local' and Path(data.ann_file).is_file():
            yield node, data


def _check(
    cfg: Config, part: str, node: dict, data: Any, masks: bool
) -> dict[Any, tuple[str, str]]:
    """Check one dataset; names of bad images and reasons, by their ids."""
    file = Path(data.ann_file)
    metrics = list(dicts_in(cfg.get(f'{part}_evaluator')))
    is_evaluated = part != 'train' and not all(
        metric.get('format_only') for metric in metrics
    )
    annotated = part == 'train' or is_evaluated
    found = read_annotations(file, masks, annotated)
    folder = data.data_prefix.get('img', '')
    if folder:
        refuse_leaving(file, found)
    _check_classes(file, found, data.metainfo.get('classes'))
    is_filtered = (node.get('filter_cfg') or {}).get('filter_empty_gt')
    if not found.annotations and (is_filtered or is_evaluated):
        raise InputError(f'{file} has no annotations to learn or to find.')
    if is_evaluated:
        _check_evaluated(file, found, metrics)
    if found.empty:
        print(
            f'{file}: {len(found.empty)} of {found.annotations} annotations '
            'have an empty box or area: a training leaves them out, an '
            f'evaluation misses them; ids {first_few(found.empty)}.'
        )
    steps = list(dicts_in(cfg[f'{part}_dataloader'].dataset))
    loaders = [
        step
        for step in dicts_in(node.get('pipeline'))
        if str(step.get('type')).endswith('LoadImageFromFile')
    ]
    if not loaders:  # images of a format of their own
        return {}
    names = [image['file_name'] for image in found.images]
    bad = bad_images(
        [Path(folder, name) for name in names],
        [(image['width'], image['height']) for image in found.images],
        {
            'flag': loaders[0].get('color_type', 'color'),
            'backend': loaders[0].get('imdecode_backend', 'cv2'),
        },
        [scale for step in steps for scale in _scales(step)],
    )
    return {
        found.images[i]['id']: (names[i], reason) for i, reason in bad.items()
    }


def _check_classes(file: Path, found: CocoFile, classes: Any) -> None:
    """mmdet numbers the classes in the order of the file."""
    if classes and [x for x in found.names if x in classes] != list(classes):
        raise InputError(
            f'{file}: the classes of the config, {first_few(classes)}, are '
            f'not its categories in their order, {first_few(found.names)}: '
            'set metainfo.classes of the dataset, and num_classes of the '
            'heads, or give --data-root.'
        )


def _check_evaluated(file: Path, found: CocoFile, metrics: list[dict]) -> None:
    """Refuse what only the numbers of an evaluation would suffer from."""
    if found.ignored:
        raise InputError(
            f'{file}: {len(found.ignored)} annotations have ignore, which a '
            "training leaves out and COCO's evaluation counts as objects to "
            'find: write iscrowd 1 for a region that counts as nothing, or '
            f'take them out; ids {first_few(found.ignored)}.'
        )
    if found.no_crowd:
        raise InputError(
            f'{file}: {len(found.no_crowd)} annotations have no iscrowd, '
            "which COCO's evaluation needs: write 0 or 1; ids "
            f'{first_few(found.no_crowd)}.'
        )
    plain = any(metric.get('type') == 'CocoMetric' for metric in metrics)
    if found.odd_ids and plain:
        raise InputError(
            f'{file}: annotations with the ids {first_few(found.odd_ids)}: '
            'CocoMetric counts what finds them as wrong, or stops. Number '
            'them from 1, or take --eval-backend, which does.'
        )


def _scales(step: dict) -> list[tuple]:
    """Sizes into which a step of a pipeline fits images."""
    if not step.get('keep_ratio') and 'img_scale' not in step:
        return []
    found: list = []
    for key in ('scale', 'scales', 'img_scale'):
        value = step.get(key) or ()
        found += value if isinstance(value[:1], list) else [value]
    return [
        tuple(scale)
        for scale in found
        if len(scale) == 2 and all(isinstance(x, int) for x in scale)
    ]


def _write_without(file: Path, new: Path, bad: dict) -> None:
    """Write an annotation file that leaves images out, and say so."""
    content = json.loads(file.read_text(encoding='utf-8'))
    images = [x for x in content['images'] if x['id'] not in bad]
    if not images:
        raise InputError(f'{file}: --skip-bad-images leaves no image.')
    total = len(content['images'])
    left_out = [f'{name} ({why})' for name, why in bad.values()]
    content['images'] = images
    content['annotations'] = [
        x for x in content.get('annotations', []) if x['image_id'] not in bad
    ]
    content['left_out'] = left_out
    new.parent.mkdir(parents=True, exist_ok=True)
    # Processes of another node may write the same file.
    part = new.with_name(f'{new.name}.{os.uname().nodename}.{os.getpid()}')
    part.write_text(json.dumps(content), encoding='utf-8')
    part.replace(new)
    print(
        f'{file}: {len(bad)} of {total} images are left out '
        f'(--skip-bad-images){": " if bad else ""}{first_few(left_out)}'
    )
