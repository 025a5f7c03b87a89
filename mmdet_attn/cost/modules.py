"""Each module against the straightforward form of its formula."""

import os
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import nn

import mmdet_attn
from mmdet_attn.cost.cases import Case, Setup
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.errors import InputError

# The stages of ResNet-50: channels and stride.
STAGES = ((256, 4), (512, 8), (1024, 16), (2048, 32))
# The straightforward formula of these has H W x H W matrices.
WHOLE_MATRIX = ('NonLocal', 'PAM')


def build_module(name: str, channels: int) -> nn.Module:
    """A module of this package with its paper's defaults."""
    args = (channels, channels, 3) if name == 'PSAConv2d' else (channels,)
    return getattr(mmdet_attn, name)(*args)


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
