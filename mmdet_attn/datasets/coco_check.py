"""Check that a COCO annotation file can be trained on and evaluated."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmdet_attn.collection import no_collection
from mmdet_attn.datasets.run_lengths import fill
from mmdet_attn.errors import InputError

TOLERANCE = 1.0  # pixels that a box may reach over its image, by rounding
FAR = 1e6  # pixels; pycocotools walks along every edge of a polygon
FIELDS = (
    'id',
    'image_id',
    'category_id',
    'bbox',
    'area',
    'iscrowd',
    'ignore',
    'segmentation',
)


class CocoFile(NamedTuple):
    """The contents of a COCO file, and its doubtful records.

    Attributes:
        names: The class names, in the order of the file.
        images: The records of the images.
        annotations: How many there are.
        leaving: Names of images that are outside the folder.
        empty: Ids of annotations that mmdet leaves out of a training,
            because their box or area is empty.
        ignored: Ids of annotations with `ignore`.
        no_crowd: Ids of annotations without `iscrowd`.
        odd_ids: Ids of annotations that pycocotools takes for no match.
    """

    names: tuple[str, ...]
    images: list[dict]
    annotations: int
    leaving: list[str]
    empty: list
    ignored: list
    no_crowd: list
    odd_ids: list


def check_annotations(file: Path, masks: bool = False) -> tuple[str, ...]:
    """Check a COCO file and return its class names, in its order.

    Args:
        file: The annotation file.
        masks: Whether every object must have a mask.

    Raises:
        InputError: A training would fail or learn something else than the
            file means. The message names the file and the first wrong ids.
    """
    found = read_annotations(file, masks)
    refuse_leaving(file, found)
    return found.names


def refuse_leaving(file: Path, found: CocoFile) -> None:
    """Refuse names of images that are outside the folder of images."""
    if found.leaving:
        raise InputError(
            f'{file}: {len(found.leaving)} of {len(found.images)} images '
            'have a file_name that leaves the folder of images: '
            f'{first_few(found.leaving)}.'
        )


def first_few(values: Sequence) -> str:
    """The first five of some values."""
    shown = ', '.join(str(value)[:60] for value in values[:5])
    return shown + (', ...' if len(values) > 5 else '')


def read_annotations(
    file: Path, masks: bool = False, annotated: bool = True
) -> CocoFile:
    """Read and check a COCO file.

    The last files are remembered, as two checks of one command may ask.

    Args:
        file: The annotation file.
        masks: Whether every object must have a mask.
        annotated: Whether it must have annotations, which files of images
            to predict on have not.

    Raises:
        InputError: The file cannot be used.
    """
    with no_collection():
        return _read(file, masks, annotated, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(file: Path, masks: bool, annotated: bool, modified: int) -> CocoFile:
    content = _load(file, masks)
    if isinstance(content, dict) and not annotated:
        content.setdefault('annotations', [])
    for key in ('images', 'categories', 'annotations'):
        if not isinstance(content, dict) or key not in content:
            raise _no_coco(file, f'it has no {key!r}')
        kind = tuple if key == 'annotations' else dict
        section = content[key]
        if not isinstance(section, list):
            raise _no_coco(file, f'{key!r} is no list')
        if set(map(type, section)) - {kind}:
            wrong = [i for i, x in enumerate(section) if type(x) is not kind]
            raise _no_coco(
                file,
                f'{key!r} needs an object with '
                f'{"image_id" if kind is tuple else "id"!r} at each place, '
                f'unlike at {first_few(wrong)} (from 0)',
            )
        if not section and key != 'annotations':
            raise InputError(f'{file} has no {key}.')
    images, categories = content['images'], content['categories']
    sizes = _check_images(file, images)
    names = _check_categories(file, categories)
    rows = content['annotations']
    columns = [[row[k] for row in rows] for k in range(len(FIELDS))]
    leaving = [i['file_name'] for i in images if _leaves(i['file_name'])]
    return CocoFile(
        names,
        images,
        len(content['annotations']),
        leaving,
        *_check_columns(file, columns, sizes, categories, masks),
    )


def _no_coco(file: Path, reason: object) -> InputError:
    return InputError(f'{file} is not a COCO detection file: {reason}.')


def _load(file: Path, masks: bool) -> Any:
    """The content, with a tuple for each annotation, for less memory."""

    def row(found: dict) -> Any:
        if 'image_id' not in found or 'file_name' in found:
            return found
        values = list(map(found.get, FIELDS))
        values[-1] = _mask(values[-1]) if masks else None
        return tuple(values)

    try:
        with open(file, encoding='utf-8') as stream:
            return json.load(stream, object_hook=row)
    except (ValueError, RecursionError) as error:
        raise _no_coco(file, f'{type(error).__name__}: {error}') from None


def _mask(mask: Any) -> Any:
    """The run lengths of a mask; of another one, whether it is bad."""
    if not mask:
        return 'none'
    if isinstance(mask, dict):
        return mask
    return None if _are_polygons(mask) else 'bad'


def _are_polygons(mask: Any) -> bool:
    return isinstance(mask, list) and all(
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and set(map(type, polygon)) <= {int, float}
        # NaN is neither.
        and min(polygon) > -FAR
        and max(polygon) < FAR
        and isfinite(sum(polygon))
        for polygon in mask
    )


def _refuser(file: Path, section: str, ids: Sequence) -> Callable:
    """A function that refuses the records that have a problem."""

    def refuse(what: str, bad: Iterable[int]) -> None:
        found = [ids[i] for i in bad]
        if found:
            raise InputError(
                f'{file}: {len(found)} of {len(ids)} {section} {what}: '
                f'ids {first_few(found)}.'
            )

    return refuse


def _check_ids(file: Path, section: str, ids: Sequence) -> None:
    """Ids are numbers or text, all different."""
    kinds = set(map(type, ids))
    if kinds != {str} and not np.isfinite(_numbers(ids)).all():
        bad = [i for i, x in enumerate(ids) if not _is_id(x)]
        raise _no_coco(
            file,
            f"each of {section!r} needs an 'id', a number or text, and all of "
            f'one kind; look at places {first_few(bad or range(2))} (from 0)',
        )
    if len(set(ids)) < len(ids):
        bad = [x for x, count in Counter(ids).items() if count > 1]
        raise InputError(
            f'{file}: {len(bad)} ids of {section} are there more than once: '
            f'ids {first_few(bad)}.'
        )


def _is_id(value: Any) -> bool:
    return type(value) is str or isfinite(_float(value))


def _float(value: Any) -> float:
    """A number as float; NaN for anything else."""
    try:
        return float(value) if type(value) in (int, float) else np.nan
    except OverflowError:
        return np.nan


def _numbers(values: Iterable) -> np.ndarray:
    values = list(values)
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, float)
        except OverflowError:
            pass
    return np.array([_float(value) for value in values])


def _check_images(file: Path, images: list[dict]) -> dict:
    ids = [image.get('id') for image in images]
    _check_ids(file, 'images', ids)
    refuse = _refuser(file, 'images', ids)
    files = [image.get('file_name') for image in images]
    bad = [i for i, x in enumerate(files) if not (isinstance(x, str) and x)]
    refuse('have no file_name', bad)
    sizes = np.stack(
        [_numbers(x.get(k) for x in images) for k in ('width', 'height')], 1
    )
    fine = ((sizes >= 1) & np.isfinite(sizes)).all(1)
    refuse('have no width and height in pixels', np.flatnonzero(~fine))
    return dict(zip(ids, sizes, strict=True))


def _check_categories(file: Path, categories: list[dict]) -> tuple[str, ...]:
    ids = [category.get('id') for category in categories]
    _check_ids(file, 'categories', ids)
    names: list[Any] = [category.get('name') for category in categories]
    bad = [i for i, x in enumerate(names) if not (isinstance(x, str) and x)]
    _refuser(file, 'categories', ids)('have no name', bad)
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f'{file}: {count} categories are named {name!r}.')
    return tuple(names)


def _leaves(name: str) -> bool:
    plain = os.path.normpath(name)
    return os.path.isabs(plain) or plain.split(os.sep)[0] == os.pardir


def _check_columns(
    file: Path,
    columns: list[list],
    sizes: dict,
    categories: list[dict],
    masks: bool,
) -> tuple[list, list, list, list]:
    """Check the annotations; their fields are columns.

    Returns:
        The last four attributes of `CocoFile`.
    """
    ids, image_ids, category_ids, boxes, areas, crowds, ignores, shapes = (
        columns
    )
    _check_ids(file, 'annotations', ids)
    refuse = _refuser(file, 'annotations', ids)
    known = {category['id'] for category in categories}
    refuse(
        f'have a category_id that is not among the {len(known)} categories',
        _strangers(category_ids, known),
    )
    refuse(
        'have an image_id that is not among the images',
        _strangers(image_ids, sizes),
    )
    rule = 'have a bbox that is not [x, y, width, height] with sizes >= 0'
    refuse(
        rule,
        [
            i
            for i, box in enumerate(boxes)
            if not (isinstance(box, list) and len(box) == 4)
        ],
    )
    box = _numbers(chain.from_iterable(boxes)).reshape(-1, 4)
    fine = np.isfinite(box).all(1) & (box[:, 2:] >= 0).all(1)
    refuse(rule, np.flatnonzero(~fine))
    end = box[:, :2] + box[:, 2:]
    many = len(ids) / 2
    normal = (box[:, :2] >= 0).all(1) & (end <= 1).all(1) & end.any(1)
    if normal.sum() > many:
        refuse(
            'have a box within 0..1 (normalised): COCO counts in pixels',
            np.flatnonzero(normal),
        )
    rows = {image_id: row for row, image_id in enumerate(sizes)}
    size = np.array(list(sizes.values()))[[rows[i] for i in image_ids]]
    outside = (box[:, :2] < -TOLERANCE).any(1)
    outside |= (end > size + TOLERANCE).any(1)
    refuse(
        'have a box that reaches outside its image (clip it)',
        np.flatnonzero(outside),
    )
    area = _numbers(areas)
    most = (size + 2 * TOLERANCE).prod(1)
    refuse(
        'have no area, a number of pixels from 0 to those of the image (that '
        'of the mask, or width times height)',
        np.flatnonzero(~((area >= 0) & (area <= most))),
    )
    refuse(
        'have an iscrowd that is not 0 or 1',
        [
            i
            for i, crowd in enumerate(crowds)
            if not isinstance(crowd, (int, float, type(None)))
            or crowd not in (0, 1, None)
        ],
    )
    inside = np.minimum(end, size) - np.maximum(box[:, :2], 0)
    empty = (box[:, 2:] < 1).any(1) | (inside <= 0).any(1) | (area <= 0)
    if empty.sum() > many:
        refuse(
            'have an empty box or area, which no training takes',
            np.flatnonzero(empty),
        )
    if masks:
        _check_masks(shapes, size, refuse)
    return (
        [ids[i] for i in np.flatnonzero(empty)],
        [x for x, ignore in zip(ids, ignores, strict=True) if ignore],
        [x for x, crowd in zip(ids, crowds, strict=True) if crowd is None],
        [x for x in ids if x == 0 or isinstance(x, str)],
    )


def _strangers(values: Sequence, known: Iterable) -> list[int]:
    kinds = set(map(type, known))
    return [
        i
        for i, value in enumerate(values)
        if type(value) not in kinds or value not in known  # type: ignore
    ]


def _check_masks(shapes: Sequence, size: np.ndarray, refuse: Callable) -> None:
    refuse(
        'have no segmentation, which this config trains on',
        [i for i, shape in enumerate(shapes) if shape == 'none'],
    )
    refuse(
        'have a polygon that is not [x1, y1, x2, y2, x3, y3, ...] in pixels, '
        'with three points or more',
        [i for i, shape in enumerate(shapes) if shape == 'bad'],
    )
    coded = [i for i, shape in enumerate(shapes) if shape is not None]
    filled = fill([shapes[i] for i in coded], size[coded, ::-1].astype(int))
    refuse(
        'have run lengths that do not fill their image, for which an '
        'evaluation would wait for ever',
        np.array(coded, int)[~filled],
    )
