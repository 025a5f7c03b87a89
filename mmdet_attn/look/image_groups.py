"""Which images make one curve: a class of an annotation file, or each."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmdet_attn.errors import InputError

MOST_CURVES = 8  # that can be told apart


def images_by_class(
    file: str | Path, images: Sequence[str]
) -> dict[str, list[int]]:
    """Indices of the images that show each class, most frequent class first.

    An image that shows several classes counts for each of them.

    Args:
        file: A COCO annotation file.
        images: Paths; the file must list their names.

    Raises:
        InputError: The file is no COCO file, does not list an image or lists
            it twice, or has no object in any of them.
    """
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        # Files list train/1.jpg or 1.jpg, whatever folder the tool was given.
        listed = [Path(i['file_name']).name for i in content['images']]
        ids = {
            n: i['id'] for n, i in zip(listed, content['images'], strict=True)
        }
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
    count = Counter(listed)
    twice = [path for path in images if count[Path(path).name] > 1]
    if twice:
        raise InputError(
            f'--ann {file} lists {Path(twice[0]).name} in several folders: '
            'give a file in which names are unique.'
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


def _images(count: int) -> str:
    return '1 image' if count == 1 else f'{count} images'


def curve_groups(
    images: Sequence[str], classes: dict[str, list[int]] | None
) -> dict[str, list[int]]:
    """The images of each curve, by its label."""
    if classes is not None:
        return {
            f'{name} ({_images(len(members))})': members
            for name, members in list(classes.items())[:MOST_CURVES]
        }
    if len(images) > MOST_CURVES:
        return {}
    return {Path(path).name: [index] for index, path in enumerate(images)}


def curves_sentence(
    images: Sequence[str], classes: dict[str, list[int]] | None
) -> str:
    """What the curves are, for the sentence that explains the plots."""
    if classes is not None:
        most = len(classes) > MOST_CURVES
        few = f' (the {MOST_CURVES} most frequent),' if most else ','
        return (
            f', one coloured curve for each class{few} the mean over the '
            'images that show it'
        )
    if len(images) > MOST_CURVES:
        return ', mean and spread over the images'
    return ', one coloured curve for each image'
