"""Draw a map of a network over the image that the network saw."""

from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from torch.nn import functional as F

FLAT = 1e-3  # a smaller range is noise: it is not stretched over the colours
# Without its ends, which are as dark as a dark image.
COLOURS = ListedColormap(colormaps['turbo'](np.linspace(0.08, 0.92, 256)))


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


def colour_range(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value, or a wider range around a flat map."""
    low, high = float(values.min()), float(values.max())
    spare = max(0.0, FLAT - (high - low)) / 2
    return low - spare, high + spare


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Colour a grey image by values.

    Args:
        image: (H, W, 3), RGB in bytes.
        values: (H, W).

    Returns:
        (H, W, 3), RGB in bytes.
    """
    low, high = colour_range(values)
    scaled = (values - low) / (high - low)
    colours = COLOURS(scaled, bytes=True)[..., :3]
    grey = image @ np.array([0.299, 0.587, 0.114]) / 255
    # The image darkens the colours. Mixed with grey, they would differ from
    # those of the colour bar.
    shaded = colours * (0.4 + 0.6 * grey[..., None])
    return shaded.round().astype(np.uint8)
