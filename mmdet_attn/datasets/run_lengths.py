"""Whether run-length masks fill their image.

Evaluation of a mask that does not fill its image never ends: pycocotools and
faster-coco-eval wait for the missing pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

CHUNK = 10_000  # masks that are decoded together, for less memory


def fill(masks: Sequence[Any], sizes: np.ndarray) -> np.ndarray:
    """Whether each mask has the size of its image, and fills it.

    Args:
        masks: COCO's `{'size': [height, width], 'counts': ...}`, where counts
            is a list of numbers or pycocotools' text.
        sizes: Height and width of their images, `(N, 2)`.
    """
    found = np.zeros(len(masks), bool)
    texts = []
    for i, mask in enumerate(masks):
        counts, size = mask.get('counts'), mask.get('size')
        if size != sizes[i].tolist() or set(map(type, size)) != {int}:
            continue
        if isinstance(counts, str) and counts.isascii():
            texts.append(i)
        elif isinstance(counts, list) and set(map(type, counts)) == {int}:
            found[i] = min(counts) >= 0 and sum(counts) == size[0] * size[1]
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        found[chunk] = _totals([masks[i]['counts'] for i in chunk]) == sizes[
            chunk
        ].prod(1)
    return found


def _totals(texts: list[str]) -> np.ndarray:
    """Pixels of each mask; -1 if its text is none of pycocotools.

    A number has 5 bits to a character, the lowest first; bit 5 says that
    more follow, and bit 4 of the last is the sign. From the fourth number on,
    the number before the last is to be added.
    """
    lengths = np.array(list(map(len, texts)))
    total = np.where(lengths, 0, -1)
    code = np.frombuffer(''.join(texts).encode(), np.uint8).astype(int) - 48
    if not code.size:
        return total
    owner = np.repeat(np.arange(len(texts)), lengths)
    is_last = code & 32 == 0
    text_ends = np.cumsum(lengths[lengths > 0]) - 1
    wrong = (code < 0) | (code > 63)
    wrong[text_ends] |= ~is_last[text_ends]
    is_last[text_ends] = True

    last = np.flatnonzero(is_last)
    start = np.concatenate([[0], last[:-1] + 1])
    digits = last - start + 1
    wrong[last] |= digits > 7  # more than any image needs
    place = np.minimum(np.arange(code.size) - np.repeat(start, digits), 7)
    value = np.add.reduceat((code & 31) << 5 * place, start)
    value -= np.where(code[last] & 16, 1 << 5 * np.minimum(digits, 8), 0)

    mask = owner[last]
    index = np.arange(last.size) - np.searchsorted(mask, mask)
    series = mask * 3 + np.where(index == 0, 0, 1 + index % 2)
    order = np.argsort(series, kind='stable')
    series, runs = series[order], np.cumsum(value[order])
    before = np.concatenate([[0], runs])[np.searchsorted(series, series)]
    runs = runs - before
    np.add.at(total, mask[order], runs)
    total[mask[order][runs < 0]] = -1
    total[owner[wrong]] = -1
    return total
