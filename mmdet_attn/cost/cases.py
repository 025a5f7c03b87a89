"""The cases of the benchmark: modules and formulas, networks and plain."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import mmdet_attn
from mmdet_attn.config_files import CONFIGS, load_config_file
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.cost.timing import Setup, Step, peak_mib, time_pair
from mmdet_attn.errors import InputError

DETECTOR = 'faster_rcnn_r50'
# The stages of ResNet-50: channels and stride.
STAGES = ((256, 4), (512, 8), (1024, 16), (2048, 32))
# The straightforward formula of these has H W x H W matrices.
WHOLE_MATRIX = ('CrissCross', 'NonLocal', 'PAM')


class Case(NamedTuple):
    """Two steps that do the same.

    Attributes:
        name: Name of the module.
        size: Shape of the input, for reading.
        params: Parameters that only the first step has.
        step: The step to measure.
        other: The step to measure it against.
    """

    name: str
    size: str
    params: int
    step: Step
    other: Step

    def measure(self, setup: Setup, rounds: int) -> dict[str, Any]:
        """Its time and memory, by name."""
        return {
            'name': self.name,
            'size': self.size,
            'mode': 'forward+backward' if setup.backward else 'forward',
            'params': self.params,
            **time_pair(self.step, self.other, rounds),
            'mib': peak_mib(self.step, setup.device),
            'other_mib': peak_mib(self.other, setup.device),
        }


def build_module(name: str, channels: int) -> nn.Module:
    """A module of this package with its paper's defaults."""
    conv = (channels, 3)
    needed = {'PSAConv2d': conv, 'SKConv2d': conv, 'LSKA': (23,)}
    return getattr(mmdet_attn, name)(channels, *needed.get(name, ()))


def fits(name: str, shape: tuple[int, ...], setup: Setup) -> bool:
    """Whether the whole matrices of a formula fit into the memory."""
    if name not in WHOLE_MATRIX:
        return True
    if torch.device(setup.device).type == 'cuda':
        total = torch.cuda.mem_get_info()[1]
    else:
        total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    matrix = 4 * shape[0] * (shape[2] * shape[3]) ** 2
    return matrix * (6 if setup.backward else 4) < 0.8 * total


def module_cases(
    names: Iterable[str], size: tuple[int, int], batch: int, setup: Setup
) -> Iterator[Case | str]:
    """Every module at the four stages of a ResNet-50.

    Batch norms are in eval mode: over a single value they cannot train.

    Args:
        names: Names of modules.
        size: Height and width of the images in pixels.
        batch: Images at once.
        setup: How they are run.

    Yields:
        A case, or a line that says why there is none.

    Raises:
        InputError: A module and its formula disagree.
    """
    for name in names:
        for stage, (channels, stride) in enumerate(STAGES, 1):
            shape = (batch, channels, size[0] // stride, size[1] // stride)
            if not fits(name, shape, setup):
                yield f'{name}, stage {stage}: the whole matrix does not fit.'
                continue
            torch.manual_seed(0)
            module = build_module(name, channels)
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.02)
            module.eval().to(setup.device)
            formula = partial(FORMULAS[name], module)
            x = setup.input(*shape)
            with torch.no_grad():
                y, expected = module(x), formula(x)
            if not torch.allclose(y, expected, 1e-3, 1e-3):
                raise InputError(
                    f'{name} at {shape}: disagrees with its formula.'
                )
            x.requires_grad_(setup.backward)
            yield Case(
                name,
                f'{stage}: {" x ".join(map(str, shape))}',
                sum(p.numel() for p in module.parameters()),
                setup.step(module, module.parameters(), x),
                setup.step(formula, module.parameters(), x),
            )


def network_cases(
    names: Iterable[str],
    part: str,
    size: tuple[int, int],
    batch: int,
    setup: Setup,
) -> Iterator[Case | str]:
    """Faster R-CNN R50, or its backbone, with each module and without.

    Args:
        names: Names of modules. Their configs are those of this package.
        part: `'backbones'` or `'detectors'`.
        size: Height and width of the images in pixels.
        batch: Images at once.
        setup: How they are run.

    Yields:
        A case, or a line that says why there is none.
    """
    plain = _build(CONFIGS / f'{DETECTOR}.py', part, setup)
    image = setup.input(batch, 3, *size)
    without = _step(plain, part, image, setup)
    count = sum(p.numel() for p in plain.parameters())
    for name in names:
        file = CONFIGS / f'{DETECTOR}_{name.lower()}.py'
        if not file.is_file():
            file = CONFIGS / 'ablation' / file.name
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
    cfg = load_config_file(file).model
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
