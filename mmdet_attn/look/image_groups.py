"""Group images for curves: by class, or each image alone."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmdet_attn.errors import InputError

MOST_CURVES = 8  # more cannot be told apart


def curve_groups(
    images: Sequence[str], classes: dict[str, list[int]] | None
) -> dict[str, list[int]]:
    """The images of each curve, by its label. Empty for many images.

    Args:
        images: Paths.
        classes: Indices of the images that show each class.
    """
    if classes is None:
        few = len(images) <= MOST_CURVES
        return {Path(p).name: [i] for i, p in enumerate(images) if few}
    groups = {}
    for name, members in list(classes.items())[:MOST_CURVES]:
        plural = '' if len(members) == 1 else 's'
        groups[f'{name} ({len(members)} image{plural})'] = members
    return groups


def images_by_class(
    file: str | Path, images: Sequence[str]
) -> dict[str, list[int]]:
    """Indices of the images that show each class, most frequent class first.

    An image that shows several classes counts for each of them.

    Args:
        file: A COCO annotation file.
        images: Paths. The file must list their names.

    Raises:
        InputError: The file is no COCO file, does not list an image or lists
            it twice, or has no object in any of them.
    """
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        # A file lists train/1.jpg or 1.jpg, whatever folder was given.
        listed = [Path(i['file_name']).name for i in content['images']]
        ids = dict(
            zip(listed, (i['id'] for i in content['images']), strict=True)
        )
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
    wanted = [Path(path).name for path in images]
    if missing := [name for name in wanted if name not in ids]:
        raise InputError(
            f'--ann {file} does not list {len(missing)} of the images, '
            f'{missing[0]} first: give the annotation file of '
            'these images.'
        )
    count = Counter(listed)
    if twice := [name for name in wanted if count[name] > 1]:
        raise InputError(
            f'--ann {file} lists {twice[0]} in several folders: '
            'give a file in which names are unique.'
        )
    members = {
        name: [i for i, one in enumerate(wanted) if (ids[one], name) in shown]
        for name in names.values()
    }
    found = {name: some for name, some in members.items() if some}
    if not found:
        raise InputError(
            f'--ann {file} has no object in these images: leave --ann out, '
            'or give images with objects.'
        )
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
