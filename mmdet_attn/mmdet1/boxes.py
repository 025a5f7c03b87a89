"""Between the last pixel of a box, as 1.x stores it, and its far edge."""

from torch import Tensor


def to_edges(boxes: Tensor) -> Tensor:
    """Boxes ``(..., x1, y1, x2, y2)`` of 1.x with the far corner one on.

    Width and height are then plain differences, as in 3.x: this is the 1 that
    1.x adds wherever it needs a size, when it writes results included.
    """
    far = boxes.new_zeros(boxes.shape[-1])
    far[-2:] = 1
    return boxes + far
