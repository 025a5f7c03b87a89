"""Check images by their first and last bytes, without decoding them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import track

ORIENTATION = 0x0112  # of EXIF; from 5 on, width and height change places
ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
TAIL = 64  # bytes; some cameras write a few after the end


def bad_images(
    paths: Sequence[Path],
    sizes: Sequence[tuple[float, float]],
    loader: dict[str, Any],
    scales: Sequence[tuple[int, int]] = (),
) -> dict[int, str]:
    """Find images that cannot be used, and why.

    An image whose header has the recorded size, and whose file has an end, is
    good. Any other is decoded as by the data loader.

    Args:
        paths: The image files.
        sizes: Width and height of each as recorded.
        loader: `flag` and `backend` of `mmcv.imread`.
        scales: Sizes into which images are fitted. An image of which nothing
            would be left is bad.

    Returns:
        Reasons, by position.
    """

    def check(index: int) -> str:
        path, size = paths[index], tuple(sizes[index])
        why = ''
        if not _looks_fine(path, size):
            why = why_unreadable(path, size, **loader)
        return why or _vanishes(size, scales)

    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        reasons = track(
            pool.map(check, range(len(paths))),
            'checking images',
            total=len(paths),
            transient=True,
            disable=len(paths) < 1000,
        )
        return {i: reason for i, reason in enumerate(reasons) if reason}


def _looks_fine(path: Path, size: tuple) -> bool:
    from PIL import Image

    try:
        with open(path, 'rb') as file, Image.open(file) as image:
            fine = image.size == size
            # The method of PNG would decode the image.
            if Image.Image.getexif(image).get(ORIENTATION, 1) != 1:
                return False
            if image.format in ENDS:
                file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
                fine = fine and ENDS[image.format] in file.read()
    except Exception:  # whatever Pillow's many readers raise
        return False
    return fine


def why_unreadable(
    path: Path, size: tuple | None = None, **loader: Any
) -> str:
    """Decode an image as a data loader does; what is wrong, if anything."""
    import cv2
    import mmcv

    try:
        image = mmcv.imfrombytes(path.read_bytes(), **loader)
    except FileNotFoundError:
        return 'missing'
    except (OSError, ValueError) as error:
        return f'cannot be read: {error}'
    except cv2.error:  # an empty file
        image = None
    if image is None:
        return 'cannot be decoded: empty, cut short or no image'
    height, width = image.shape[:2]
    if size is not None and (width, height) != size:
        return f'is {width} x {height}, not {size[0]:g} x {size[1]:g}'
    return ''


def _vanishes(size: tuple, scales: Sequence[tuple[int, int]]) -> str:
    """The reason if a side has less than a pixel in one of the scales."""
    long, short = max(size), min(size)
    for scale in scales:
        factor = min(max(scale) / long, min(scale) / short)
        if short * factor < 1:
            return (
                f'is {size[0]:g} x {size[1]:g}, of which less than a pixel is '
                f'left in {scale[0]} x {scale[1]}'
            )
    return ''
