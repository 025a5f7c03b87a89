"""Check that a COCO annotation file can be trained on."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from mmdet_attn.errors import InputError

TOLERANCE = 1.0  # pixels that a box may reach over its image, by rounding


def check_annotations(file: Path, masks: bool = False) -> tuple[str, ...]:
    """Check a COCO file and return its class names, in its order.

    Args:
        file: The annotation file.
        masks: Whether every object must have a mask.

    Raises:
        InputError: The file is no COCO detection file, it has no images or
            no categories, an annotation names an unknown category or image,
            a mask is missing, or a box is malformed or lies outside its
            image. The message names the file and the first wrong ids.
    """
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        images = {
            i['id']: (i['width'], i['height']) for i in content['images']
        }
        names = {c['id']: c['name'] for c in content['categories']}
        annotations = content['annotations']
        ids = [a['id'] for a in annotations]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{file} is not a COCO detection file: '
            f'{type(error).__name__}: {error}.'
        ) from None
    if not images:
        raise InputError(f'{file} has no images.')
    if not names:
        raise InputError(f'{file} has no categories.')
    name, count = Counter(names.values()).most_common(1)[0]
    if count > 1:
        raise InputError(f'{file}: {count} categories are named {name!r}.')

    def refuse(what: str, bad: list) -> None:
        if bad:
            shown = ', '.join(map(str, bad[:5]))
            more = ', ...' if len(bad) > 5 else ''
            raise InputError(
                f'{file}: {len(bad)} of {len(annotations)} annotations '
                f'{what}: ids {shown}{more}.'
            )

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
