"""Which images show which class, from a COCO annotation file."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmdet_attn.errors import InputError


def images_by_class(
    file: str | Path, images: Sequence[str]
) -> dict[str, list[int]]:
    """Indices of the images that show each class, most frequent class first.

    An image that shows several classes counts for each of them.

    Args:
        file: A COCO annotation file.
        images: Paths; the file must list their names.

    Raises:
        InputError: The file is no COCO file, does not list an image, or has
            no object in any of them.
    """
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        # Files list train/1.jpg or 1.jpg, whatever folder the tool was given.
        ids = {Path(i['file_name']).name: i['id'] for i in content['images']}
        names = {c['id']: c['name'] for c in content['categories']}
        shown = {
            (a['image_id'], names[a['category_id']])
            for a in content['annotations']
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'--ann {file} is not a COCO detection file that can be read: '
            f'{type(error).__name__}: {error}.'
        ) from None
    missing = [path for path in images if Path(path).name not in ids]
    if missing:
        raise InputError(
            f'--ann {file} does not list {len(missing)} of the images, '
            f'{Path(missing[0]).name} first: give the file that belongs to '
            'them.'
        )
    found = {
        name: [
            index
            for index, path in enumerate(images)
            if (ids[Path(path).name], name) in shown
        ]
        for name in names.values()
    }
    found = {name: members for name, members in found.items() if members}
    if not found:
        raise InputError(
            f'--ann {file} has no object in these images: leave it out, or '
            'give images with objects.'
        )
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
