"""Any folder in COCO format becomes the dataset of a config."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config

from mmdet_attn.errors import InputError

# Folder and annotation names, in the order in which they are looked for.
LAYOUTS = (
    {'train': 'train', 'val': 'val'},
    {'train': 'train2017', 'val': 'val2017'},
)
TOLERANCE = 1.0  # pixels a box may reach over its image: rounding


def find_split(root: Path, split: str) -> tuple[str, str]:
    """Image folder and annotation file of a split, relative to the root."""
    if not root.is_dir():
        raise InputError(f'{root}: no such folder (--data-root).')
    lacking = []
    for layout in LAYOUTS:
        images = layout[split]
        annotations = f'annotations/instances_{images}.json'
        pieces = [root / images, root / annotations]
        if all(piece.exists() for piece in pieces):
            return f'{images}/', annotations
        if any(piece.exists() for piece in pieces):
            lacking = [str(p) for p in pieces if not p.exists()]
    raise InputError(
        f'{root} lacks {" and ".join(lacking) or f"the {split} split"}. '
        'Wanted: train/ val/ annotations/instances_{train,val}.json, or '
        "COCO's own train2017/ val2017/ annotations/instances_*2017.json."
    )


def check_annotations(file: Path, masks: bool = False) -> tuple[str, ...]:
    """Class names of a COCO file, in its order, once it is found sound.

    Args:
        file: The annotation file.
        masks: Whether every object must have a mask.

    Raises:
        InputError: The file is no COCO detection file, has no images or no
            categories, or annotations name unknown categories or images,
            lack a mask, or have boxes that are no boxes or lie outside their
            image. The message names the file and the first offending ids.
    """
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        images = {
            i['id']: (i['width'], i['height']) for i in content['images']
        }
        names = {c['id']: c['name'] for c in content['categories']}
        annotations = content['annotations']
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{file} is not a COCO detection file: '
            f'{type(error).__name__}: {error}.'
        ) from None
    if not images:
        raise InputError(f'{file} has no images.')
    if not names:
        raise InputError(f'{file} has no categories.')
    if len(set(names.values())) < len(names):
        raise InputError(f'{file}: two categories have the same name.')

    def refuse(what: str, bad: list) -> None:
        if bad:
            shown = ', '.join(map(str, bad[:5]))
            more = ', ...' if len(bad) > 5 else ''
            raise InputError(
                f'{file}: {len(bad)} of {len(annotations)} annotations '
                f'{what}: ids {shown}{more}.'
            )

    ids = [a.get('id') for a in annotations]
    refuse(
        f'have a category_id that is not among the {len(names)} categories',
        [a['id'] for a in annotations if a.get('category_id') not in names],
    )
    refuse(
        'have an image_id that is not among the images',
        [a['id'] for a in annotations if a.get('image_id') not in images],
    )
    refuse(
        'have a bbox that is not [x, y, width, height] with sizes >= 0',
        [a['id'] for a in annotations if not _is_box(a.get('bbox'))],
    )
    if masks:
        refuse(
            'have no segmentation, which this config trains on',
            [a['id'] for a in annotations if not a.get('segmentation')],
        )
    if annotations:
        box = np.array([a['bbox'] for a in annotations], float)
        size = np.array([images[a['image_id']] for a in annotations], float)
        outside = (box[:, :2] < -TOLERANCE).any(1)
        outside |= (box[:, :2] + box[:, 2:] > size + TOLERANCE).any(1)
        refuse(
            'have a box that reaches outside its image (clip it)',
            [ids[index] for index in np.flatnonzero(outside)],
        )
    return tuple(names.values())


def _is_box(box) -> bool:
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError):
        return False
    return bool(np.isfinite([x, y]).all() and width >= 0 and height >= 0)


def use_data_root(
    cfg: Config, root: str, splits: tuple[str, ...] = ('train', 'val')
) -> None:
    """Point a config at a folder in COCO format.

    Data sets, evaluators, class names and the number of classes of every
    head follow the annotation files; the test split is ``val``.

    Args:
        cfg: A detection config, changed in place.
        root: The folder.
        splits: What is needed of it.

    Raises:
        InputError: A piece is missing or an annotation file is unsound.
    """
    path = Path(root)
    found = {split: find_split(path, split) for split in splits}
    masks = any(step.get('with_mask') for step in _dicts(cfg.train_pipeline))
    classes = {
        split: check_annotations(path / file, masks)
        for split, (_, file) in found.items()
    }
    if len(set(classes.values())) > 1:
        raise InputError(
            f'{path}: the categories of train and val differ: '
            f'{classes["train"]} and {classes["val"]}.'
        )
    names = classes['val']
    loaders = {'train': 'train', 'val': 'val', 'test': 'val'}
    for key, split in loaders.items():
        if split not in found:
            continue
        images, file = found[split]
        dataset = cfg[f'{key}_dataloader'].dataset
        while 'dataset' in dataset:  # RepeatDataset and its like
            dataset = dataset.dataset
        dataset.update(
            type='CocoDataset',
            data_root=str(path),
            ann_file=file,
            data_prefix={'img': images},
            metainfo=_metainfo(names, dataset.get('metainfo', {})),
        )
        if key != 'train':
            for metric in _dicts(cfg[f'{key}_evaluator']):
                if 'ann_file' in metric:
                    metric['ann_file'] = str(path / file)
    for head in _dicts(cfg.model):
        if 'num_classes' in head:
            head['num_classes'] = len(names)


def _metainfo(names: tuple[str, ...], old: dict) -> dict:
    """Class names with colours; COCO's 80 are what mmdet has by default."""
    palette = old.get('palette')
    if palette is None or len(palette) != len(names):
        palette = 'random' if len(names) > 80 else None
    return {'classes': names} | ({'palette': palette} if palette else {})


def _dicts(node) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts(child)
