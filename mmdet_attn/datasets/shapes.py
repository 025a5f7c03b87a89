"""Draw a small detection set in COCO format, with no download.

The images have coloured shapes of five classes and of different sizes, which
overlap, on cluttered backgrounds. Some images have a crowd. Boxes, areas and
polygons describe what is visible. The same seed gives the same bytes.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from rich.progress import track

from mmdet_attn.errors import InputError

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross')
MIN_VISIBLE = 0.5  # of a shape's pixels; hidden shapes have no label
MAX_TURN = np.pi / 12
MIN_CONTRAST = 90  # of 255, to what a shape covers, in at least one channel
CROWD_RATE = 0.08  # of the images


def outline(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Corners `(K, 2)` of a slightly turned shape of radius 1."""
    radius: np.ndarray = np.ones(1)
    if kind == 'circle':
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    elif kind == 'square':
        angle = np.pi / 4 + np.arange(4) * np.pi / 2
    elif kind == 'triangle':
        angle = -np.pi / 2 + np.arange(3) * 2 * np.pi / 3
    elif kind == 'star':
        angle = -np.pi / 2 + np.arange(10) * np.pi / 5
        radius = np.tile([1.0, 0.42], 5)
    else:  # cross: a plus sign, three corners to an arm
        tip, notch = np.hypot(1, 0.33), 0.33 * np.sqrt(2)
        half = np.arctan2(0.33, 1)
        arm = np.array([-half, half, np.pi / 4])
        angle = (np.arange(4)[:, None] * np.pi / 2 + arm).ravel()
        radius = np.tile([tip, tip, notch], 4) / tip
    angle = angle + rng.uniform(-MAX_TURN, MAX_TURN)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Soft blobs, thin lines and noise, without objects."""
    import cv2

    coarse = rng.uniform(60, 200, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(5, 13)):
        start, end = rng.integers(0, size, (2, 2))
        colour = rng.uniform(30, 225, 3)
        cv2.line(
            image,
            start.tolist(),
            end.tolist(),
            colour.tolist(),
            int(rng.integers(1, 3)),
            cv2.LINE_AA,
        )
    noisy = image + rng.normal(0, 5, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def paint(
    image: np.ndarray,
    owner: np.ndarray,
    number: int,
    corners: np.ndarray,
    rng: np.random.Generator,
) -> int:
    """Draw one shape over an image and return its number of pixels.

    `owner` has the number of the topmost shape for every pixel.
    """
    import cv2

    points = np.round(corners).astype(np.int32)
    mask = np.zeros(owner.shape, np.uint8)
    cv2.fillPoly(mask, [points], 1)
    covered = image[mask > 0].mean(0) if mask.any() else np.zeros(3)
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - covered).max() < MIN_CONTRAST:
        colour = rng.uniform(0, 255, 3)
    shade = rng.normal(0, 6, (*owner.shape, 1)) + colour
    image[mask > 0] = np.clip(shade, 0, 255)[mask > 0]
    edge = np.clip(colour * 0.6, 0, 255).tolist()
    cv2.polylines(image, [points], True, edge, 1, cv2.LINE_AA)
    owner[mask > 0] = number
    return int(mask.sum())


def polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO's polygons of a mask, along the edges of pixels."""
    import cv2

    # Contours run through pixel centres. On the doubled mask those lie a
    # quarter pixel inside the edge, near enough to rasterise back exactly.
    double = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    contours, hierarchy = cv2.findContours(
        double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    holes = [
        c for c, h in zip(contours, hierarchy[0], strict=True) if h[3] >= 0
    ]
    if holes:
        # COCO's polygons have none: cut the mask in two through the hole.
        column = int(holes[0][:, 0, 0].mean()) // 2
        left, right = mask.copy(), mask.copy()
        left[:, column:] = False
        right[:, :column] = False
        return polygons(left) + polygons(right)
    return [((c.ravel() + 0.5) / 2).tolist() for c in contours]


def run_lengths(mask: np.ndarray) -> dict:
    """Uncompressed run-length encoding, as COCO stores its crowds."""
    flat = np.concatenate([[0], mask.ravel(order='F'), [0]]).astype(np.int8)
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    # A mask that ends in ones has no closing run of zeros.
    counts = counts if counts[-1] or len(counts) == 1 else counts[:-1]
    return {'size': list(mask.shape), 'counts': counts.tolist()}


def draw(size: int, rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """One image `(size, size, 3)` and its annotations, without ids."""
    import cv2

    image = background(size, rng)
    owner = np.zeros((size, size), np.int32)
    drawn: list[tuple[int, int, bool]] = []  # label, pixels, crowd

    def place(label: int, radius: float, centre: np.ndarray) -> int:
        corners = outline(CLASSES[label], rng) * radius + centre
        number = len(drawn) + 1
        return paint(image, owner, number, corners, rng)

    if rng.random() < CROWD_RATE:
        label = int(rng.integers(len(CLASSES)))
        middle = rng.uniform(0.25, 0.75, 2) * size
        pixels = 0
        for _ in range(rng.integers(12, 20)):
            centre = middle + rng.uniform(-0.2, 0.2, 2) * size
            pixels += place(label, rng.uniform(0.025, 0.05) * size, centre)
        drawn.append((label, pixels, True))
    for _ in range(rng.integers(2, 7)):
        label = int(rng.integers(len(CLASSES)))
        # Uniform in the logarithm: small ones as often as large ones.
        radius = np.exp(rng.uniform(np.log(0.06), np.log(0.25))) * size
        pixels = place(label, radius, rng.uniform(0.08, 0.92, 2) * size)
        drawn.append((label, pixels, False))

    annotations = []
    for number, (label, pixels, crowd) in enumerate(drawn, start=1):
        mask = owner == number
        visible = int(mask.sum())
        if visible < max(16, 0 if crowd else MIN_VISIBLE * pixels):
            continue
        shape = run_lengths(mask) if crowd else polygons(mask)
        annotations.append(
            {
                'category_id': label + 1,
                'bbox': list(cv2.boundingRect(mask.astype(np.uint8))),
                'area': visible,
                'segmentation': shape,
                'iscrowd': int(crowd),
            }
        )
    return image, annotations


def make_shapes(
    root: str | Path,
    train: int = 600,
    val: int = 150,
    size: int = 192,
    seed: int = 0,
) -> None:
    """Render the set at `root`, in COCO's layout.

    Args:
        root: A new folder, which gets `train/`, `val/` and `annotations/`.
        train: Number of training images.
        val: Number of validation images.
        size: Height and width of every image in pixels.
        seed: The same seed gives the same files, byte for byte.

    Raises:
        InputError: `root` has files already, or a number is too small.
    """
    import cv2

    root = Path(root)
    for name, value, least in (
        ('train', train, 1),
        ('val', val, 1),
        ('size', size, 64),
        ('seed', seed, 0),
    ):
        if value < least:
            raise InputError(f'{name} must be at least {least}, got {value}.')
    if root.exists() and any(root.iterdir()):
        raise InputError(
            f'{root} is not empty: name a new folder, or remove this one.'
        )
    # The folder gets its name when it is complete.
    partial = root.with_name(root.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    (partial / 'annotations').mkdir(parents=True)
    for number, (split, count) in enumerate((('train', train), ('val', val))):
        (partial / split).mkdir()
        images: list[dict] = []
        annotations: list[dict] = []
        for index in track(range(1, count + 1), f'{split} images'):
            rng = np.random.default_rng([seed, number, index])
            image, labels = draw(size, rng)
            name = f'{index:06d}.png'
            cv2.imwrite(str(partial / split / name), image)
            images.append(
                {'id': index, 'file_name': name, 'height': size, 'width': size}
            )
            for label in labels:
                identity = {'id': len(annotations) + 1, 'image_id': index}
                annotations.append(identity | label)
        categories = [
            {'id': label, 'name': name, 'supercategory': 'shape'}
            for label, name in enumerate(CLASSES, start=1)
        ]
        content = {
            'info': {'description': f'shapes, seed {seed}'},
            'licenses': [],
            'images': images,
            'annotations': annotations,
            'categories': categories,
        }
        file = partial / 'annotations' / f'instances_{split}.json'
        file.write_text(json.dumps(content))
    if root.exists():
        root.rmdir()
    partial.rename(root)
