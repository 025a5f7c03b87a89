"""A detector, or its backbone, with each module and without."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmdet_attn.cost.cases import Case, Setup
from mmdet_attn.cost.timing import Step

DETECTOR = 'faster_rcnn_r50'


def network_cases(
    names: Iterable[str],
    configs: Path,
    part: str,
    size: tuple[int, int],
    batch: int,
    setup: Setup,
) -> Iterator[Case | str]:
    """Faster R-CNN R50, or its backbone, with each module and without.

    Args:
        names: Names of modules. Their configs are those of this package.
        configs: The folder of the configs.
        part: `'backbones'` or `'detectors'`.
        size: Height and width of the images in pixels.
        batch: Images at once.
        setup: How they are run.

    Yields:
        A case, or a line that says why there is none.
    """
    plain = _build(configs / f'{DETECTOR}.py', part, setup)
    image = setup.input(batch, 3, *size)
    without = _step(plain, part, image, setup)
    count = sum(p.numel() for p in plain.parameters())
    for name in names:
        file = configs / f'{DETECTOR}_{name.lower()}.py'
        if not file.is_file():
            file = configs / 'ablation' / file.name
        if not file.is_file():
            yield f'{name}: there is no {file.name}.'
            continue
        model = _build(file, part, setup)
        yield Case(
            name,
            ' x '.join(map(str, image.shape)),
            sum(p.numel() for p in model.parameters()) - count,
            _step(model, part, image, setup),
            without,
        )


def _build(file: Path, part: str, setup: Setup) -> nn.Module:
    """Build with random weights, which take as long as trained ones."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    cfg = Config.fromfile(file).model
    cfg.backbone.pop('init_cfg', None)
    torch.manual_seed(0)
    model = MODELS.build(cfg.backbone if part == 'backbones' else cfg)
    if setup.channels_last:
        model.to(memory_format=torch.channels_last)
    model.to(setup.device).train(setup.backward)
    return model


def _step(model: Any, part: str, image: Tensor, setup: Setup) -> Step:
    if part == 'backbones':
        return setup.step(model, model.parameters(), image)
    from mmdet.testing import demo_mm_inputs

    shapes = [tuple(image.shape[1:])] * len(image)
    packed = demo_mm_inputs(len(image), shapes, num_items=[8] * len(image))
    samples = [s.to(setup.device) for s in packed['data_samples']]
    for sample in samples:
        sample.set_metainfo({'pad_shape': tuple(image.shape[2:])})

    def detect(x: Tensor) -> Any:
        if setup.backward:
            return model.parse_losses(model.loss(x, samples))[0]
        return model.predict(x, samples)

    return setup.step(detect, model.parameters(), image)
