"""The cases of the benchmark: modules and formulas, networks and plain."""

import os
from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmdet_attn
from mmdet_attn.config_files import CONFIGS, load_config_file
from mmdet_attn.cost.complexity import Dense
from mmdet_attn.cost.counts import Run
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.cost.timing import Setup, peak_mib, time_pair
from mmdet_attn.errors import InputError
from mmdet_attn.fuse import fuse
from mmdet_attn.plugins import Gate

DETECTOR = 'faster_rcnn_r50'
# The stages of ResNet-50: channels and stride.
STAGES = ((256, 4), (512, 8), (1024, 16), (2048, 32))
# The straightforward formula of these has H W x H W matrices.
WHOLE_MATRIX = ('CrissCross', 'NonLocal', 'PAM')


class Work:
    """What runs on an input, to be timed and counted.

    Args:
        setup: How it is run.
        module: Whose parameters it has.
        x: The input.
        run: What runs on the module and the input.
        counted: What is counted in the place of the module.

    Attributes:
        params: How many parameters it has.
    """

    def __init__(
        self,
        setup: Setup,
        module: nn.Module,
        x: Tensor,
        run: Run = nn.Module.__call__,
        counted: nn.Module | None = None,
    ) -> None:
        self.params = sum(p.numel() for p in module.parameters())
        self.step = setup.step(run, module, x)
        if counted is not None:
            module, run = counted, nn.Module.__call__
        self._count = partial(setup.counts, run, module, x)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Its counts by name."""
        return self._count()._asdict()


class Case(NamedTuple):
    """Two works that do the same.

    Attributes:
        name: Name of the module.
        size: Shape of the input, for reading.
        params: Parameters that only the first work has.
        work: The work to measure.
        other: The work to measure it against.
    """

    name: str
    size: str
    params: int
    work: Work
    other: Work

    def measure(self, setup: Setup, rounds: int) -> dict[str, Any]:
        """Its counts by name; with rounds its time and memory, too."""
        row: dict[str, Any] = {
            'name': self.name,
            'size': self.size,
            'mode': 'forward+backward' if setup.backward else 'forward',
            'params': self.params,
            **self.work.counts,
            **{f'other_{k}': v for k, v in self.other.counts.items()},
        }
        if rounds:
            steps = self.work.step, self.other.step
            row |= time_pair(*steps, rounds)
            row['mib'], row['other_mib'] = (
                peak_mib(step, setup.device) for step in steps
            )
        return row


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
            formula = FORMULAS[name]
            x = setup.input(*shape)
            with torch.no_grad():
                y, expected = module(x), formula(module, x)
            if not torch.allclose(y, expected, 1e-3, 1e-3):
                raise InputError(
                    f'{name} at {shape}: disagrees with its formula.'
                )
            x.requires_grad_(setup.backward)
            work = Work(setup, module, x)
            yield Case(
                name,
                f'{stage}: {" x ".join(map(str, shape))}',
                work.params,
                work,
                Work(setup, module, x, formula),
            )


def network_cases(
    names: Iterable[str],
    part: str,
    size: tuple[int, int],
    batch: int,
    setup: Setup,
    fused: bool = False,
) -> Iterator[Case | str]:
    """Faster R-CNN R50, or its backbone, with each module.

    Batch norms are in eval mode: over a single value they cannot train.

    Args:
        names: Names of modules. Their configs are those of this package.
        part: `'backbones'` or `'detectors'`.
        size: Height and width of the images in pixels.
        batch: Images at once.
        setup: How they are run.
        fused: Whether each is held fused against itself, the plain one too,
            in the place of each against the plain one.

    Yields:
        A case, or a line that says why there is none.
    """
    image = setup.input(batch, 3, *size)

    def case(name: str, one: Work, other: Work) -> Case:
        shape = ' x '.join(map(str, image.shape))
        return Case(name, shape, one.params - other.params, one, other)

    def both(model: nn.Module) -> tuple[Work, Work]:
        one = deepcopy(model)
        fuse(one, partial(_layers(one, part), image))
        return work(one), work(model)

    work = partial(_work, part=part, image=image, setup=setup)
    model = _build(CONFIGS / f'{DETECTOR}.py', part, setup)
    plain = work(model)
    if fused:
        yield case('plain', *both(model))
    for name in names:
        file = CONFIGS / f'{DETECTOR}_{name.lower()}.py'
        if not file.is_file():
            file = CONFIGS / 'ablation' / file.name
        if not file.is_file():
            yield f'{name}: there is no {file.name}.'
            continue
        model = _build(file, part, setup)
        works = both(model) if fused else (work(model), plain)
        yield case(name, *works)


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
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
        elif isinstance(layer, Gate) and layer.alpha is not None:
            # With 0, where it starts, fusing leaves the gate out.
            nn.init.constant_(layer.alpha, 0.5)
    return model


def _layers(model: nn.Module, part: str) -> nn.Module:
    """Without what depends on the image: proposals, RoIAlign and NMS."""
    return model if part == 'backbones' else Dense(model)


def _work(model: Any, part: str, image: Tensor, setup: Setup) -> Work:
    if part == 'backbones':
        return Work(setup, model, image)
    from mmdet.testing import demo_mm_inputs

    shapes = [tuple(image.shape[1:])] * len(image)
    packed = demo_mm_inputs(len(image), shapes, num_items=[8] * len(image))
    samples = [s.to(setup.device) for s in packed['data_samples']]
    for sample in samples:
        sample.set_metainfo({'pad_shape': tuple(image.shape[2:])})

    def detect(model: Any, x: Tensor) -> Any:
        if setup.backward:
            return model.parse_losses(model.loss(x, samples))[0]
        return model.predict(x, samples)

    return Work(setup, model, image, detect, _layers(model, part))
