"""Show the gates of a detector: PNGs, and one HTML page that holds them."""

import re
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw
from rich.progress import track
from torch import nn

from mmdet_attn.inference import classes_of
from mmdet_attn.look.activations import (
    OVERLAP,
    Activations,
    Detection,
    activations,
)
from mmdet_attn.look.gauge import Gauge
from mmdet_attn.look.heat_maps import COLOURS, enlarge, overlay
from mmdet_attn.look.image_groups import curve_groups
from mmdet_attn.look.plots import plot_channels, plot_factors
from mmdet_attn.look.views import (
    CONSTANT,
    LITTLE,
    PARTS,
    GateView,
    Gauges,
    Look,
    Summary,
    attention_of,
    by_stage,
    gate_views,
    look_at,
    shares_of,
    summary_of,
)
from mmdet_attn.templates import render
from mmdet_attn.weights.plugins import plugins_of

# Pixels of the longer side of a picture in the page. PNGs keep their size.
DETECTION_SIDE, HEAT_MAP_SIDE = 640, 300


def attention_maps(
    inferencer: Any,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    classes: dict[str, list[int]] | None = None,
    score_thr: float = 0.3,
    shown: int = 8,
    compare: Any = None,
    detection: int = 1,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Run a detector and write what its gates do.

    Args:
        inferencer: An inferencer of MMDetection.
        images: Image files.
        out: A folder, which gets `index.html` and the PNGs.
        classes: Indices of the images that show each class, for one curve
            for each class. By default each image has a curve, if they are
            few.
        score_thr: The least score of a box that is drawn.
        shown: How many images have their detections and heat maps drawn,
            from the first on. All numbers are those of all images.
        compare: An inferencer of a second detector, such as one without
            attention, to show where both look.
        detection: The detection for Grad-CAM: 1 for that with the highest
            score in each image, 2 for the next.
        facts: What the page says about the run: names and values.

    Returns:
        The page.

    Raises:
        InputError: The detector has no attention.
    """
    network = inferencer.model
    kinds = {
        name: type(module).__name__
        for name, module in attention_of(network).items()
    }
    paths, out = [str(image) for image in images], Path(out)
    out.mkdir(parents=True, exist_ok=True)
    detectors = [one for one in (inferencer, compare) if one is not None]
    looks, detections, looking = [], [], []
    gauges: Gauges = defaultdict(Gauge)
    for index, path in enumerate(track(paths, 'looking at images')):
        look, sample = look_at(inferencer, path, gauges, index < shown)
        looks.append(look)
        if index < shown:
            detections.append(
                _draw_detections(inferencer, path, sample, score_thr, out)
            )
            looking.append(_draw_activations(detectors, path, detection, out))
    views, without = gate_views(network, looks, gauges)
    gates = [view for view in views if view.identity]
    adding = [view for view in views if not view.identity]
    groups = curve_groups(paths, classes)
    stages, factors = [], None
    if summary := summary_of(gates):
        factors = _png(plot_factors(gates, summary, out / 'factors.png'))
        stages = [
            _draw_stage(name, members, summary, looks[:shown], groups, out)
            for name, members in track(
                by_stage(gates).items(), 'drawing the gates'
            )
        ]
    page = render(
        'mmdet_attn.look',
        colours=[to_hex(COLOURS(stop)) for stop in np.linspace(0, 1, 9)],
        facts=facts,
        detectors=[_contents(one.model) for one in detectors],
        detection=detection,
        overlap=OVERLAP,
        looking=looking,
        images=len(paths),
        shown=min(shown, len(paths)),
        score_thr=score_thr,
        detections=detections,
        summary=summary,
        parts=PARTS,
        little=LITTLE,
        constant=CONSTANT,
        gates=gates,
        shares=shares_of(gates),
        factors=factors,
        classes=len(classes or ()),
        groups=groups,
        stages=stages,
        adding=adding,
        added=shares_of(adding),
        # The blocks of a stage share a line: *.1.psa and *.2.psa are *.*.psa.
        without=Counter(
            (kinds.get(name, ''), re.sub(r'\.\d+(?=\.|$)', '.*', name), reason)
            for name, reason in without.items()
        ),
    )
    file = out / 'index.html'
    file.write_text(page, encoding='utf-8')
    return file


def _contents(network: nn.Module) -> tuple[str, Counter]:
    """Its class, and how many attention modules of each class it has."""
    plugins = plugins_of(network).values()
    return type(network).__name__, Counter(type(p).__name__ for p in plugins)


def _draw_detections(
    inferencer: Any, path: str, sample: Any, score_thr: float, out: Path
) -> dict[str, Any]:
    (drawn,) = inferencer.visualize(
        [path], [sample], return_vis=True, pred_score_thr=score_thr
    )
    drawn = Image.fromarray(drawn)
    _save(drawn, out / 'detections' / f'{Path(path).stem}.png')
    return {
        'image': Path(path).name,
        'objects': int((sample.pred_instances.scores >= score_thr).sum()),
        'picture': _jpeg(drawn, DETECTION_SIDE),
    }


def _draw_activations(
    detectors: Sequence[Any], path: str, rank: int, out: Path
) -> dict[str, Any]:
    """Draw where each detector looks in an image."""
    wanted: int | Detection = rank
    rows, folder = [], out / 'activations' / Path(path).stem
    for inferencer in detectors:
        found = activations(inferencer, path, wanted)
        rows.append(
            {
                'place': found.place,
                'why': found.why,
                'detection': found.detection,
                'classes': classes_of(inferencer),
                'pictures': _draw_levels(found, path, folder),
            }
        )
        # The second detector is asked for the same object.
        wanted, folder = found.detection or rank, folder / 'compare'
    return {'image': Path(path).name, 'rows': rows}


def _draw_levels(
    found: Activations, path: str, folder: Path
) -> list[dict[str, Any]]:
    import mmcv

    image = mmcv.imread(path, channel_order='rgb')
    width = max(1, round(2 * max(image.shape) / HEAT_MAP_SIDE))
    pictures = []
    for kind, planes in (
        ('Grad-CAM', found.grad),
        ('EigenCAM', dict(enumerate(found.eigen))),
    ):
        for level, plane in planes.items():
            # The colours have their middle at 1.
            values = 1 + enlarge(plane, found.geometry)
            drawn = Image.fromarray(overlay(image, values, 1))
            if found.detection and kind == 'Grad-CAM':
                ImageDraw.Draw(drawn).rectangle(
                    found.detection.box, outline='yellow', width=width
                )
            _save(drawn, folder / f'{kind}_{level + 1}.png')
            pictures.append(
                {
                    'kind': kind,
                    'level': level + 1,
                    'stride': round(found.geometry.padded[0] / len(plane)),
                    'picture': _jpeg(drawn, HEAT_MAP_SIDE),
                }
            )
    return pictures


def _draw_stage(
    name: str,
    views: list[GateView],
    summary: Summary,
    looks: Sequence[Look],
    groups: dict[str, list[int]],
    out: Path,
) -> dict[str, Any]:
    weighted = [view for view in views if view.weights is not None]
    channels = None
    if weighted:
        file = out / 'channel_factors' / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        channels = _png(plot_channels(weighted, groups, summary.axis, file))
    heat_maps = [
        drawn
        for index, look in enumerate(looks)
        for drawn in _draw_heat_maps(views, index, summary.limit, look, out)
    ]
    return {
        'name': name,
        'views': views,
        'channels': channels,
        'heat_maps': heat_maps,
    }


def _draw_heat_maps(
    views: Sequence[GateView],
    index: int,
    limit: float,
    look: Look,
    out: Path,
) -> list[dict[str, Any]]:
    import mmcv

    found = []
    image = None
    for view in views:
        plane = view.maps[index].plane
        if plane is None:
            continue
        if image is None:
            # As the network reads it: its orientation is that of the maps.
            image = mmcv.imread(look.path, channel_order='rgb')
        drawn = Image.fromarray(
            overlay(image, enlarge(plane, look.geometry), limit)
        )
        folder = out / 'heat_maps' / Path(look.path).stem
        _save(drawn, folder / f'{view.name}.png')
        found.append(
            {
                'image': Path(look.path).name,
                'view': view,
                'plane': plane,
                'picture': _jpeg(drawn, HEAT_MAP_SIDE),
            }
        )
    return found


def _save(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


def _png(file: Path) -> str:
    return f'data:image/png;base64,{b64encode(file.read_bytes()).decode()}'


def _jpeg(picture: Image.Image, side: int) -> str:
    """A data URI of a picture, which shrinks to at most `side` pixels."""
    stream = BytesIO()
    picture.thumbnail((side, side))
    picture.save(stream, 'JPEG', quality=88)
    return f'data:image/jpeg;base64,{b64encode(stream.getvalue()).decode()}'
