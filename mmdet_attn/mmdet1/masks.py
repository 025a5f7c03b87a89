"""Paste the masks of boxes into an image, as in MMDetection 1.x."""

import mmcv
import numpy as np
import torch
from torch import Tensor


def paste_masks(
    masks: Tensor, boxes: Tensor, shape: tuple[int, int], threshold: float
) -> Tensor:
    """Resize each mask to the whole pixels of its box, then cut it.

    Args:
        masks: Probabilities, `(N, h, w)`.
        boxes: Boxes in the image, `(N, 4)`. x2 and y2 are the last pixel.
        shape: Height and width of the image.
        threshold: A pixel above it belongs to the object.

    Returns:
        `(N, *shape)`, bool, on the device of the masks.
    """
    height, width = shape
    pasted = np.zeros((len(boxes), height, width), dtype=bool)
    corners = boxes.cpu().numpy().astype(np.int32)
    for image, mask, (x1, y1, x2, y2) in zip(
        pasted, masks.float().cpu().numpy(), corners, strict=True
    ):
        size = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        # Rounding in the rescaling may push a box over the image.
        window = image[y1 : y1 + size[1], x1 : x1 + size[0]]
        resized = mmcv.imresize(mask, size) > threshold
        window[...] = resized[: window.shape[0], : window.shape[1]]
    return torch.from_numpy(pasted).to(masks.device)
