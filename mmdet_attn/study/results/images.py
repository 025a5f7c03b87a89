"""The images of a training: their data set and their size."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath

from mmengine.config import Config

from mmdet_attn.study.results.attention import short

COCO = 'COCO train2017, val2017'


def data_set(cfg: Config) -> str:
    """The data set of training and evaluation, in words."""
    train, wrappers = _unwrap(cfg.train_dataloader.dataset)
    val, _ = _unwrap(cfg.val_dataloader.dataset)
    files = [str(d.get('ann_file', '?')) for d in (train, val)]
    names = [PurePath(file).name for file in files]
    classes = (val.get('metainfo') or {}).get('classes')
    whole = not train.get('indices') and not val.get('indices')
    coco = names == [f'instances_{s}2017.json' for s in ('train', 'val')]
    if coco and whole and len(classes or range(80)) == 80:
        text = COCO
    else:
        root = str(val.get('data_root') or '')
        text = ', '.join([root.rstrip('/'), *files]).removeprefix(', ')
        text += f', {len(classes)} classes' if classes else ''
        text += '' if whole else ', a part of it'
    return text + ''.join(f', in a {wrapper}' for wrapper in wrappers)


def _unwrap(dataset: Mapping) -> tuple[Mapping, list[str]]:
    wrappers = []
    while 'dataset' in dataset or 'datasets' in dataset:
        wrappers.append(short(dataset['type']))
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset, wrappers


def image_scale(cfg: Config) -> str:
    """The size to which images are resized, in words."""
    found = []
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset, _ = _unwrap(loader.dataset)
        found.append(
            ' or '.join(
                ' x '.join(str(side) for side in sorted(scale, reverse=True))
                for scale in _scales(dataset.get('pipeline') or ())
            )
            or 'as it is'
        )
    train, val = found
    return train if train == val else f'{train}; {val} in evaluation'


def _scales(pipeline) -> Iterator[tuple]:
    for step in pipeline:
        if 'Resize' in short(step['type']):
            scales = step.get('scale') or step.get('scales') or ()
            nested = scales and isinstance(scales[0], (list, tuple))
            yield from scales if nested else [scales]
