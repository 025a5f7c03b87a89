"""What the attention of a detector does in images: pictures and a page."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from mmdet_attn.look.gate_plots import plot_alphas
from mmdet_attn.look.gate_views import (
    attention_of,
    by_stage,
    gate_views,
    look_at,
)
from mmdet_attn.look.image_groups import curve_groups, curves_sentence
from mmdet_attn.look.page import (
    Content,
    Picture,
    data_uri,
    render_page,
)
from mmdet_attn.look.stage_section import new_folder, stage_section

SIDE = 640  # pixels of the longer side of a picture in the page


def attention_maps(
    inferencer: Any,
    images: Sequence[str | Path],
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
    paths, out = [str(image) for image in images], Path(out)
    looks, detections = [], []
    for index, path in enumerate(track(paths, 'looking at images')):
        look, sample = look_at(inferencer, path, index < shown)
        looks.append(look)
        if index < shown:
            drawn = _detections(inferencer, path, sample, score_thr, out)
            detections.append(drawn)
    views, without = gate_views(network, looks)
    groups = curve_groups(paths, classes)
    stages = [
        stage_section(name, members, looks[:shown], groups, out)
        for name, members in track(
            by_stage(views).items(), 'drawing the gates'
        )
    ]
    alphas = plot_alphas(views, new_folder(out) / 'alpha.png')
    kinds = {name: type(module).__name__ for name, module in attention.items()}
    counts = Counter(kinds.values()).items()
    facts = [
        *facts,
        ('detector', type(network).__name__),
        ('attention', ', '.join(f'{n} x {kind}' for kind, n in counts)),
        ('images', _images(paths, shown)),
    ]
    page = render_page(
        Content(
            facts,
            detections,
            score_thr,
            None if alphas is None else Picture(data_uri(alphas), 'alpha'),
            stages,
            _fold(without, kinds),
            curves_sentence(paths, classes),
        )
    )
    file = out / 'index.html'
    file.write_text(page, encoding='utf-8')
    return file


def _detections(
    inferencer: Any, path: str, sample: Any, score_thr: float, out: Path
) -> Picture:
    (drawn,) = inferencer.visualize(
        [path], [sample], return_vis=True, pred_score_thr=score_thr
    )
    name = Path(path).name
    file = new_folder(out, 'detections') / f'{Path(path).stem}.png'
    Image.fromarray(drawn).save(file)
    found = int((sample.pred_instances.scores >= score_thr).sum())
    objects = 'object' if found == 1 else 'objects'
    return Picture(data_uri(drawn, SIDE), name, f'{found} {objects}')


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
