"""Draw detections with lines and labels that suit the size of the image."""

from typing import Any

import numpy as np
from mmdet.visualization import DetLocalVisualizer

LINE = 3  # pixels, in a picture of COCO's training scale
SCALE = (1333 * 800) ** 0.5
SMALLEST = 6  # points: smaller letters cannot be read


class FittedVisualizer(DetLocalVisualizer):
    """MMDetection's visualizer with sizes in proportion to the image.

    Args:
        name: The name of the instance.
        line_width: The width of lines in pixels; None fits it to each image.
        kwargs: As of `DetLocalVisualizer`.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        line_width: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, line_width=line_width or LINE, **kwargs)
        self.fits_lines = line_width is None
        self.factor = 1.0

    def add_datasample(
        self, name: str, image: np.ndarray, *args: Any, **kwargs: Any
    ) -> None:
        self.factor = (image.shape[0] * image.shape[1]) ** 0.5 / SCALE
        if self.fits_lines:
            self.line_width = max(1, round(LINE * self.factor))
        super().add_datasample(name, image, *args, **kwargs)

    def draw_texts(self, *args: Any, font_sizes: int, **kwargs: Any) -> Any:
        size = max(SMALLEST, round(font_sizes * self.factor))
        return super().draw_texts(*args, font_sizes=size, **kwargs)
