"""One HTML page that needs nothing but itself."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.colors import to_hex
from PIL import Image

from mmdet_attn.look.heat_maps import COLOURS
from mmdet_attn.look.page_template import TEMPLATE


class Picture(NamedTuple):
    """An image in the page, as a data URI, and what stands below it."""

    uri: str
    name: str
    note: str = ''
    low: str = ''
    high: str = ''


class Row(NamedTuple):
    """The heat maps of one image."""

    image: str
    pictures: list[Picture]


class Stage(NamedTuple):
    """One stage of the network: a table, a figure and heat maps."""

    name: str
    about: str
    table: list[tuple[str, ...]]
    channels: Picture | None
    rows: list[Row]


class Content(NamedTuple):
    """All that the page says."""

    facts: list[tuple[str, str]]
    detections: list[Picture]
    score_thr: float
    alphas: Picture | None
    stages: list[Stage]
    without: list[tuple[str, str]]
    curves: str


HEAD = (
    ('gate', 'its path in the network, as in the checkpoint'),
    ('module', 'its class'),
    ('size of g', 'channels x height x width, for the first image'),
    ('stride', 'pixels of the input for one position'),
    ('alpha', 'how far the gate is switched on'),
    ('least', 'least g over all images'),
    ('mean', 'mean g over all images'),
    ('greatest', 'greatest g over all images'),
    ('factor', '1 + alpha (g - 1), which multiplies the features'),
    ('std over images', 'of the channel weights, mean over channels'),
)


def data_uri(image: str | Path | np.ndarray, side: int | None = None) -> str:
    """An image as text that a page can hold.

    Args:
        image: A PNG file, kept as it is if no side is given; or RGB bytes.
        side: Of the largest that is kept, in pixels; smaller ones are kept
            as they are. The result is a JPEG.
    """
    if side is None and not isinstance(image, np.ndarray):
        text = b64encode(Path(image).read_bytes()).decode()
        return f'data:image/png;base64,{text}'
    if isinstance(image, np.ndarray):
        picture = Image.fromarray(image)
    else:
        picture = Image.open(image).convert('RGB')
    if side is not None:
        picture.thumbnail((side, side))
    stream = BytesIO()
    picture.save(stream, 'JPEG', quality=88)
    text = b64encode(stream.getvalue()).decode()
    return f'data:image/jpeg;base64,{text}'


def _gradient(stops: Sequence[float] = tuple(np.linspace(0, 1, 9))) -> str:
    return ', '.join(to_hex(COLOURS(stop)) for stop in stops)


def render_page(content: Content) -> str:
    """The page as text, in which names of files are escaped.

    Columns that are empty in all tables, such as alpha, are left out.
    """
    lines = [line for stage in content.stages for line in stage.table]
    used = [i for i in range(len(HEAD)) if any(line[i] for line in lines)]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.from_string(TEMPLATE).render(
        **content._asdict(), head=HEAD, used=used, gradient=_gradient()
    )
