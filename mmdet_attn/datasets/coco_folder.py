"""Make a folder in COCO format the dataset of a config."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmdet_attn.datasets.coco_check import check_annotations
from mmdet_attn.errors import InputError

# Folder and annotation names, in the order in which they are looked for.
LAYOUTS = (
    {'train': 'train', 'val': 'val'},
    {'train': 'train2017', 'val': 'val2017'},
)


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


def use_data_root(
    cfg: Config, root: str, splits: tuple[str, ...] = ('train', 'val')
) -> None:
    """Point a config at a folder in COCO format.

    Datasets, evaluators, class names and the number of classes of every
    head follow the annotation files. The test split is `val`.

    Args:
        cfg: A detection config, changed in place.
        root: The folder.
        splits: The splits that the folder must have.

    Raises:
        InputError: A folder or file is missing, or an annotation file is
            wrong.
    """
    path = Path(root)
    found = {split: find_split(path, split) for split in splits}
    loader = cfg.get('train_dataloader')
    masks = any(step.get('with_mask') for step in dicts_in(loader))
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
        if split not in found or cfg.get(f'{key}_dataloader') is None:
            continue
        images, file = found[split]
        dataset = cfg[f'{key}_dataloader'].dataset
        while 'dataset' in dataset:  # RepeatDataset and its like
            dataset = dataset.dataset
        if 'datasets' in dataset:
            raise InputError(
                f'--data-root: {key}_dataloader joins several data sets '
                f'({dataset.type}), and one folder cannot stand for them.'
            )
        dataset.update(
            type='CocoDataset',
            data_root=str(path),
            ann_file=file,
            data_prefix={'img': images},
            metainfo=_metainfo(names, dataset.get('metainfo', {})),
        )
        if key != 'train':
            for metric in dicts_in(cfg[f'{key}_evaluator']):
                if 'ann_file' in metric:
                    metric['ann_file'] = str(path / file)
    for head in dicts_in(cfg.model):
        if 'num_classes' in head:
            head['num_classes'] = len(names)


def _metainfo(names: tuple[str, ...], old: dict) -> dict:
    """Class names and colours. mmdet has colours for 80 classes."""
    palette = old.get('palette')
    if palette is None or len(palette) != len(names):
        palette = 'random' if len(names) > 80 else None
    return {'classes': names} | ({'palette': palette} if palette else {})


def dicts_in(node) -> Iterator[dict]:
    """All dictionaries in a part of a config, the part itself first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from dicts_in(child)
