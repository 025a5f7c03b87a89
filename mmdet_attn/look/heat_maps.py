"""Draw a map of a network over the image that the network saw."""

from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from torch.nn import functional as F

# White in the middle, where the factor is 1. Without the ends, which are as
# dark as a dark image.
COLOURS = ListedColormap(colormaps['RdBu_r'](np.linspace(0.12, 0.88, 257)))


class Geometry(NamedTuple):
    """Heights and widths of one image on its way into a network.

    Attributes:
        original: Size of the image file.
        resized: Size of the image as the network sees it.
        padded: Size of the network's input. The padding lies on the right
            and below.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> 'Geometry':
        """Read the sizes from the metainfo of a data sample."""
        height, width = meta['ori_shape'][:2]
        resized = tuple(meta['img_shape'][:2])
        padded = tuple(meta.get('batch_input_shape', resized))
        # A pipeline that pads counts its padding into img_shape.
        if 'scale_factor' in meta:
            scale_w, scale_h = meta['scale_factor'][:2]
            content = round(height * scale_h), round(width * scale_w)
            resized = min(resized[0], content[0]), min(resized[1], content[1])
        return cls((height, width), resized, padded)


def enlarge(plane: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Resize a map to the original image and leave out the padding."""
    cells, content, area = [], [], []
    for count, resized, padded in zip(
        plane.shape, geometry.resized, geometry.padded, strict=True
    ):
        # Cut first: interpolation would mix the edge with the padding.
        kept = ceil(count * resized / padded)
        cells.append(slice(kept))
        content.append(slice(resized))
        area.append(max(resized, round(kept * padded / count)))
    wide = torch.from_numpy(np.asarray(plane, np.float32)[tuple(cells)])
    wide = F.interpolate(wide[None, None], area, mode='bilinear')
    wide = wide[:, :, content[0], content[1]]
    wide = F.interpolate(wide, geometry.original, mode='bilinear')
    return wide[0, 0].numpy()


def overlay(image: np.ndarray, values: np.ndarray, limit: float) -> np.ndarray:
    """Colour a grey image by factors: blue below 1, none at 1, red above.

    Args:
        image: (H, W, 3), RGB in bytes.
        values: (H, W).
        limit: The distance from 1 at which the colours end.

    Returns:
        (H, W, 3), RGB in bytes.
    """
    colours = COLOURS((values - 1) / (2 * limit) + 0.5, bytes=True)[..., :3]
    grey = image @ np.array([0.299, 0.587, 0.114]) / 255
    # The image darkens the colours. Mixed with grey, they would differ from
    # those of the colour bar.
    shaded = colours * (0.4 + 0.6 * grey[..., None])
    return shaded.round().astype(np.uint8)
