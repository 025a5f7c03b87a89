"""Kinds of broken annotation files and images.

`ANNOTATIONS` and `FIELDS` map a name to a function, which changes the content
of a COCO file in place and returns what to write. The content needs images,
categories and at least three annotations with boxes and polygons.
`images()` maps a name to the bytes of an image file.
"""

import io
from collections.abc import Callable
from typing import Any

Change = Callable[[dict], Any]
MISSING = object()

# What a field may hold by mistake.
WRONG: dict[str, Any] = {
    'missing': MISSING,
    'null': None,
    'text': 'text',
    'empty text': '',
    'list': [],
    'dict': {},
    'bool': True,
    'nan': float('nan'),
    'inf': float('inf'),
    'negative': -1,
    'zero': 0,
    'fraction': 0.5,
    'huge': 10**30,
    'too huge for a float': 10**400,
    'nested': [[[[1]]]],
    'list of null': [None] * 4,
    'list of text': ['1'] * 4,
    'list of nan': [float('nan')] * 4,
    'list of dict': [{}] * 4,
}
KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'categories': ('id', 'name'),
    'annotations': (
        'id',
        'image_id',
        'category_id',
        'bbox',
        'area',
        'iscrowd',
        'ignore',
        'segmentation',
    ),
}


def put(holder: dict, key: str, value: Any) -> None:
    if value is MISSING:
        holder.pop(key, None)
    else:
        holder[key] = value


def record(section: str, **values: Any) -> Change:
    """Change fields of the first record of a section."""

    def change(content: dict) -> dict:
        for key, value in values.items():
            put(content[section][0], key, value)
        return content

    return change


def whole(section: str, value: Any) -> Change:
    """Replace a section."""

    def change(content: dict) -> dict:
        put(content, section, value)
        return content

    return change


def first(section: str, value: Any) -> Change:
    """Replace the first record of a section."""

    def change(content: dict) -> dict:
        content[section][0] = value
        return content

    return change


def as_second(section: str, key: str) -> Change:
    """Give the second record the value of the first."""

    def change(content: dict) -> dict:
        one, other = content[section][:2]
        other[key] = one[key]
        return content

    return change


def every(change_one: Callable[[dict, dict], None]) -> Change:
    """Change every annotation, of which the image is known."""

    def change(content: dict) -> dict:
        images = {image['id']: image for image in content['images']}
        for one in content['annotations']:
            change_one(one, images[one['image_id']])
        return content

    return change


def normalise(one: dict, image: dict) -> None:
    width, height = image['width'], image['height']
    x, y, w, h = one['bbox']
    one['bbox'] = [x / width, y / height, w / width, h / height]


def corners(one: dict, image: dict) -> None:
    """Write x2 and y2 for width and height."""
    x, y, w, h = one['bbox']
    one['bbox'] = [x, y, x + w, y + h]


def run_lengths(*steps: int, text: str | None = None) -> Change:
    """A run-length mask; a step is added to what fills the image."""

    def change(content: dict) -> dict:
        one = content['annotations'][0]
        image = next(
            i for i in content['images'] if i['id'] == one['image_id']
        )
        height, width = image['height'], image['width']
        counts: Any = [5, height * width - 5 + steps[0], *steps[1:]]
        if text is not None:
            counts = text
        one['segmentation'] = {'size': [height, width], 'counts': counts}
        return content

    return change


def turned(content: dict) -> dict:
    """A run-length mask for an image of another size."""
    run_lengths(0)(content)
    mask = content['annotations'][0]['segmentation']
    mask['size'] = [mask['size'][0] // 2, mask['size'][1] * 2]
    return content


def polygon(*polygons: list) -> Change:
    return record('annotations', segmentation=list(polygons))


NAN = float('nan')
SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]

# Mistakes that are made in practice.
ANNOTATIONS: dict[str, Change] = {
    'duplicate image ids': as_second('images', 'id'),
    'duplicate annotation ids': as_second('annotations', 'id'),
    'duplicate category ids': as_second('categories', 'id'),
    'duplicate category names': as_second('categories', 'name'),
    'boxes in 0..1': every(normalise),
    'corners for boxes': every(corners),
    'zero-size boxes': every(lambda a, _: a.update(bbox=[1, 1, 0, 0])),
    'one zero-size box': record('annotations', bbox=[1, 1, 0, 5], area=0),
    'areas of zero': every(lambda a, _: a.update(area=0)),
    'no areas': every(lambda a, _: a.pop('area')),
    'annotation id 0': record('annotations', id=0),
    'ignore': record('annotations', ignore=1),
    'polygon of odd count': polygon([*SQUARE, 5]),
    'polygon of 2 points': polygon([1, 1, 9, 9]),
    'empty polygon': polygon([]),
    'polygon with NaN': polygon([*SQUARE[:-1], NAN]),
    'polygon of points': polygon([[1, 1], [9, 1], [9, 9]]),
    'flat polygon': record('annotations', segmentation=SQUARE),
    'one good polygon, one bad': polygon(SQUARE, [1, 1]),
    'no polygon': polygon(),
    'run lengths too short': run_lengths(-1),
    'run lengths too long': run_lengths(1),
    'run lengths negative': run_lengths(5, -5),
    'run lengths empty': run_lengths(0, text=''),
    'run lengths of null': run_lengths(0, None),
    'run lengths as text, too short': run_lengths(0, text='5'),
    'run lengths as text, cut': run_lengths(0, text='5T'),
    'run lengths as text, other characters': run_lengths(0, text='\x7fü'),
    'run lengths of another size': turned,
    'file name to the parent': record('images', file_name='../x.png'),
    'file name to the parent, hidden': record(
        'images', file_name='a/../../x.png'
    ),
    'absolute file name': record('images', file_name='/etc/passwd'),
    'file name with a zero': record('images', file_name='a\0.png'),
    'file name of a folder': record('images', file_name='.'),
    'width and height swapped': record('images', width=7),
    'no images': whole('images', []),
    'no categories': whole('categories', []),
    'not an object': lambda content: [content],
    'a number': lambda content: 5,
    'null': lambda content: None,
}

# Each field with each wrong value, and each section and first record too.
FIELDS: dict[str, Change] = {
    f'{section}.{key} {name}': record(section, **{key: value})
    for section, keys in KEYS.items()
    for key in keys
    for name, value in WRONG.items()
}
FIELDS |= {
    f'{section} {name}': whole(section, value)
    for section in KEYS
    for name, value in WRONG.items()
}
FIELDS |= {
    f'first of {section} {name}': first(section, value)
    for section in KEYS
    for name, value in WRONG.items()
    if value is not MISSING
}


def images(suffix: str = '.png', size: tuple[int, int] = (96, 96)) -> dict:
    """Bytes of broken images, as name -> bytes.

    Args:
        suffix: The ending of the file names: `.png` or `.jpg`.
        size: Width and height that the annotation file records.
    """
    import numpy as np
    from PIL import Image

    kind = {'.png': 'PNG', '.jpg': 'JPEG'}[suffix]
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3))

    def encode(picture: Image.Image, **options: Any) -> bytes:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        return stream.getvalue()

    picture = Image.fromarray(noise.astype('uint8'))
    good = encode(picture)
    turn = Image.Exif()
    turn[0x0112] = 6  # a quarter turn
    return {
        'empty': b'',
        'one byte': good[:1],
        'header only': good[:40],
        'cut in half': good[: len(good) // 2],
        'cut by 20 bytes': good[:-20],
        'text': b'not an image\n',
        'page of zeros': good[:8] + bytes(len(good) - 8),
        'another size': encode(picture.resize((50, 40))),
        'turned by EXIF': encode(picture.resize((60, 96)), exif=turn),
        'very long': encode(Image.new('RGB', (20000, 20))),
        'one pixel': encode(Image.new('RGB', (1, 1))),
    }
