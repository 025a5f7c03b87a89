"""What the attention of a detector does in images: pictures and a page."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from mmdet_attn.analysis.gate_plots import (
    MOST_CURVES,
    plot_alphas,
    plot_channels,
)
from mmdet_attn.analysis.gate_views import (
    GateView,
    Look,
    attention_of,
    by_stage,
    gate_views,
    look_at,
)
from mmdet_attn.analysis.heat_maps import colour_range, enlarge, overlay
from mmdet_attn.analysis.page import (
    Content,
    Picture,
    Row,
    Stage,
    data_uri,
    render_page,
)

LARGE, SMALL = 640, 300  # pixels of the longer side in the page


def attention_maps(
    inferencer: Any,
    images: Sequence[str],
    out: str | Path,
    *,
    classes: dict[str, list[int]] | None = None,
    score_thr: float = 0.3,
    shown: int = 8,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Run a detector and write what its gates say.

    Args:
        inferencer: Of MMDetection.
        images: Image files.
        out: A folder, which gets ``index.html`` and the PNGs.
        classes: The images that show each class; a curve for each of the
            first. None is a curve for each image, if they are few.
        score_thr: The least score of a box that is drawn.
        shown: The images, from the first on, whose detections and heat maps
            are drawn; all of them count in the channel weights.
        facts: What else the head of the page says.

    Returns:
        The page.

    Raises:
        InputError: The detector has no attention.
    """
    network = inferencer.model
    attention = attention_of(network)
    out = Path(out)
    looks, detections = [], []
    for index, path in enumerate(track(images, 'looking at images')):
        look, sample = look_at(inferencer, path, index < shown)
        looks.append(look)
        if index < shown:
            drawn = _detections(inferencer, path, sample, score_thr, out)
            detections.append(drawn)
    views, without = gate_views(network, looks)
    groups = _groups(images, classes)
    stages = [
        _stage(name, members, looks[:shown], groups, out)
        for name, members in track(
            by_stage(views).items(), 'drawing the gates'
        )
    ]
    alphas = plot_alphas(views, _folder(out) / 'alpha.png')
    kinds = {name: type(module).__name__ for name, module in attention.items()}
    counts = Counter(kinds.values()).items()
    facts = [
        *facts,
        ('detector', type(network).__name__),
        ('attention', ', '.join(f'{n} × {kind}' for kind, n in counts)),
        ('images', _images(images, shown)),
    ]
    page = render_page(
        Content(
            facts,
            detections,
            score_thr,
            None if alphas is None else Picture(data_uri(alphas), 'alpha'),
            stages,
            _fold(without, kinds),
            _curves(images, classes),
        )
    )
    file = out / 'index.html'
    file.write_text(page, encoding='utf-8')
    return file


def _folder(*parts: str | Path) -> Path:
    folder = Path(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _detections(
    inferencer: Any, path: str, sample: Any, score_thr: float, out: Path
) -> Picture:
    (drawn,) = inferencer.visualize(
        [path], [sample], return_vis=True, pred_score_thr=score_thr
    )
    name = Path(path).name
    file = _folder(out, 'detections') / f'{Path(path).stem}.png'
    Image.fromarray(drawn).save(file)
    found = int((sample.pred_instances.scores >= score_thr).sum())
    objects = 'object' if found == 1 else 'objects'
    return Picture(data_uri(drawn, LARGE), name, f'{found} {objects}')


def _groups(
    images: Sequence[str], classes: dict[str, list[int]] | None
) -> dict[str, list[int]]:
    """The images of each curve, by its label."""
    if classes is not None:
        return {
            f'{name} ({len(members)})': members
            for name, members in list(classes.items())[:MOST_CURVES]
        }
    if len(images) > MOST_CURVES:
        return {}
    return {Path(path).name: [index] for index, path in enumerate(images)}


def _curves(
    images: Sequence[str], classes: dict[str, list[int]] | None
) -> str:
    """What the curves are, for the sentence that explains the plots."""
    if classes is not None:
        most = len(classes) > MOST_CURVES
        few = f', the {MOST_CURVES} most frequent,' if most else ''
        return (
            f', one coloured curve for each class{few} (mean over the images '
            'that show it; their number is in the legend)'
        )
    if len(images) > MOST_CURVES:
        return ', mean and spread over the images'
    return ', one coloured curve for each image'


def _images(images: Sequence[str], shown: int) -> str:
    if len(images) <= shown:
        return str(len(images))
    return (
        f'{len(images)} in the channel weights; detections and heat maps of '
        f'the first {shown}'
    )


def _fold(
    without: dict[str, str], kinds: dict[str, str]
) -> list[tuple[str, str]]:
    """Modules without a map, with the blocks of a stage in one line."""
    lines = Counter(
        (
            kinds.get(name, ''),
            re.sub(r'\.\d+(?=\.|$)', '.*', name),
            reason,
        )
        for name, reason in without.items()
    )
    return [
        (f'{kind} {name} ({count})'.strip(), reason)
        for (kind, name, reason), count in lines.items()
    ]


def _stage(
    name: str,
    views: Sequence[GateView],
    looks: Sequence[Look],
    groups: dict[str, list[int]],
    out: Path,
) -> Stage:
    weighted = [view for view in views if view.weights is not None]
    channels = None
    if weighted:
        file = plot_channels(
            weighted,
            groups,
            f'{name}: channel weights',
            _folder(out, 'channel_weights') / f'{name}.png',
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
        folder = _folder(out, 'heat_maps', Path(look.path).stem)
        Image.fromarray(drawn).save(folder / f'{view.name}.png')
        size = ' × '.join(map(str, plane.shape))
        pictures.append(
            Picture(
                data_uri(drawn, SMALL),
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
    alpha = 1.0 if view.alpha is None else view.alpha
    ends = sorted(1 + alpha * (g - 1) for g in (least, greatest))
    spread = ''
    if weights is not None and len(weights) > 1:
        spread = f'{weights.std(0).mean():.4f}'
    return (
        view.name,
        view.kind,
        ' × '.join(map(str, seen[0].shape)),
        str(view.stride),
        '' if view.alpha is None else f'{view.alpha:.3f}',
        f'{least:.3f}',
        f'{np.mean([s.mean for s in seen]):.3f}',
        f'{greatest:.3f}',
        f'{ends[0]:.3f} to {ends[1]:.3f}',
        spread,
    )
