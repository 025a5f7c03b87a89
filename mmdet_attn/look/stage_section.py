"""One stage of a network in the page, and its PNGs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmdet_attn.look.gate_plots import plot_channels
from mmdet_attn.look.gate_views import GateView, Look
from mmdet_attn.look.heat_maps import colour_range, enlarge, overlay
from mmdet_attn.look.page import Picture, Row, Stage, data_uri

SIDE = 300  # pixels of the longer side of a heat map in the page


def new_folder(*parts: str | Path) -> Path:
    """A folder, made if it is not there."""
    folder = Path(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stage_section(
    name: str,
    views: Sequence[GateView],
    looks: Sequence[Look],
    groups: dict[str, list[int]],
    out: Path,
) -> Stage:
    """Draw the gates of one stage to PNGs, and show them in the page.

    Args:
        name: Of the stage.
        views: Its gates.
        looks: The images over which heat maps are drawn.
        groups: The images of each curve, by its label.
        out: A folder, which gets ``channel_weights`` and ``heat_maps``.
    """
    weighted = [view for view in views if view.weights is not None]
    channels = None
    if weighted:
        file = plot_channels(
            weighted,
            groups,
            f'{name}: channel weights',
            new_folder(out, 'channel_weights') / f'{name}.png',
        )
        channels = Picture(data_uri(file), name)
    rows = []
    for index, look in enumerate(looks):
        pictures = _heat_maps(views, index, look, out)
        if pictures:
            rows.append(Row(Path(look.path).name, pictures))
    strides = sorted({view.stride for view in views})
    gates = 'gate' if len(views) == 1 else 'gates'
    about = (
        f'{len(views)} {gates}, stride {", ".join(map(str, strides))} pixels'
    )
    return Stage(name, about, [_line(v) for v in views], channels, rows)


def _heat_maps(
    views: Sequence[GateView], index: int, look: Look, out: Path
) -> list[Picture]:
    """The gates of a stage over one image."""
    # As the network reads it: its orientation is that of the maps.
    import mmcv

    pictures = []
    image: np.ndarray | None = None
    for view in views:
        plane = view.seen[index].plane
        if plane is None:
            continue
        if image is None:
            image = mmcv.imread(look.path, channel_order='rgb')
        values = enlarge(plane, look.geometry)
        low, high = colour_range(values)
        drawn = overlay(image, values)
        folder = new_folder(out, 'heat_maps', Path(look.path).stem)
        Image.fromarray(drawn).save(folder / f'{view.name}.png')
        size = ' x '.join(map(str, plane.shape))
        pictures.append(
            Picture(
                data_uri(drawn, SIDE),
                view.name.removeprefix('backbone.'),
                f'{size}, stride {view.stride}{_alpha(view)}',
                f'{low:.3f}',
                f'{high:.3f}',
            )
        )
    return pictures


def _alpha(view: GateView) -> str:
    return '' if view.alpha is None else f', alpha {view.alpha:.2f}'


def _line(view: GateView) -> tuple[str, ...]:
    seen, weights = view.seen, view.weights
    least, greatest = min(s.low for s in seen), max(s.high for s in seen)
    alpha = factor = ''
    if view.alpha is not None:
        alpha = f'{view.alpha:.3f}'
        ends = sorted(1 + view.alpha * (g - 1) for g in (least, greatest))
        factor = f'{ends[0]:.3f} to {ends[1]:.3f}'
    spread = ''
    if weights is not None and len(weights) > 1:
        spread = f'{weights.std(0).mean():.4f}'
    return (
        view.name,
        view.kind,
        ' x '.join(map(str, seen[0].shape)),
        str(view.stride),
        alpha,
        f'{least:.3f}',
        f'{np.mean([s.mean for s in seen]):.3f}',
        f'{greatest:.3f}',
        factor,
        spread,
    )
