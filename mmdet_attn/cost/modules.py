"""Each module against its formula, or another package's version of it."""

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import mmdet_attn
from mmdet_attn.cost.formulas import FORMULAS
from mmdet_attn.cost.timing import Run
from mmdet_attn.errors import InputError

# The stages of ResNet-50: channels and stride.
STAGES = ((256, 4), (512, 8), (1024, 16), (2048, 32))
# The straightforward formula of these has H W x H W matrices.
WHOLE_MATRIX = ('NonLocal', 'PAM')
TIMM = {
    'CBAM': 'cbam',
    'CoordAtt': 'coord',
    'ECA': 'eca',
    'GC': 'gca',
    'GE': 'ge',
    'NonLocal': 'nl',
    'SE': 'se',
}
AGAINST = {
    'formula': tuple(FORMULAS),
    'mmcv': ('GC', 'NonLocal'),
    'timm': tuple(TIMM),
}


class Setup(NamedTuple):
    """How everything is run."""

    device: str = 'cpu'
    backward: bool = False
    compile: bool = False
    channels_last: bool = False
    amp: torch.dtype | None = None

    def input(self, *shape: int) -> Tensor:
        """Random numbers in the memory format of the setup."""
        x = torch.randn(shape, device=self.device)
        if self.channels_last:
            x = x.to(memory_format=torch.channels_last)
        return x

    def step(
        self,
        function: Callable[[Tensor], Any],
        parameters: Iterable[nn.Parameter],
        x: Tensor,
    ) -> Run:
        """A forward pass without gradients, or one with all of them."""
        if self.compile:
            function = torch.compile(function)
        kind = torch.device(self.device).type
        leaves = [p for p in (x, *parameters) if p.requires_grad]

        def forward() -> Any:
            enabled = self.amp is not None
            with torch.autocast(kind, self.amp, enabled=enabled):
                return function(x)

        def train() -> Any:
            y = forward()
            outputs = y if isinstance(y, (tuple, list)) else [y]
            outputs = [z for z in outputs if z.requires_grad]
            ones = [torch.ones_like(z) for z in outputs]
            return torch.autograd.grad(
                outputs, leaves, ones, allow_unused=True
            )

        return train if self.backward else torch.no_grad()(forward)


class Case(NamedTuple):
    """Two runs that do the same; the parameters that are the first's own."""

    name: str
    size: str
    params: int
    run: Run
    other: Run


def build_module(name: str, channels: int) -> nn.Module:
    """A module of this package with its paper's defaults."""
    args = (channels, channels, 3) if name == 'PSAConv2d' else (channels,)
    return getattr(mmdet_attn, name)(*args)


def _other(name: str, module: Any, against: str) -> Any:
    """What computes the same; mmcv's with the same weights, timm's not."""
    channels = module.in_channels if against != 'formula' else 0
    if against == 'formula':
        return functools.partial(FORMULAS[name], module)
    if against == 'timm':
        layers = importlib.import_module('timm.layers')
        return layers.create_attn(TIMM[name], channels)
    bricks = importlib.import_module('mmcv.cnn')
    state = module.state_dict()
    if name == 'GC':
        hidden = module.channel_add_conv[0].out_channels
        other = bricks.ContextBlock(channels, ratio=hidden / channels)
    else:
        other = bricks.NonLocal2d(channels)
        state = {
            key.replace('.', '.conv.').replace('out.', 'conv_out.'): value
            for key, value in state.items()
        }
    other.load_state_dict(state)
    return other


def check_against(against: str) -> None:
    """See that the other package is there.

    Raises:
        InputError: It is not.
    """
    if against == 'formula':
        return
    package = {'timm': 'timm.layers'}.get(against, against)
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f'--against {against}: {error}; --against formula needs nothing.'
        ) from error


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
    names: Iterable[str],
    size: tuple[int, int],
    batch: int,
    setup: Setup,
    against: str = 'formula',
) -> Iterator[Case | str]:
    """Every module at the four stages of a ResNet-50.

    Batch norms are in eval mode: over a single value they cannot train.

    Yields:
        A case, or a line that says why there is none.

    Raises:
        InputError: A module and its counterpart disagree.
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
            other = _other(name, module, against)
            if isinstance(other, nn.Module):
                other.eval().to(setup.device)
            x = setup.input(*shape)
            # timm's have weights of their own.
            if against != 'timm':
                with torch.no_grad():
                    y, expected = module(x), other(x)
                if not torch.allclose(y, expected, 1e-3, 1e-3):
                    raise InputError(
                        f'{name} at {shape}: disagrees with its {against}.'
                    )
            x.requires_grad_(setup.backward)
            owner = other if isinstance(other, nn.Module) else module
            yield Case(
                name,
                f'{stage}: {batch} x {channels} x {shape[2]} x {shape[3]}',
                sum(p.numel() for p in module.parameters()),
                setup.step(module, module.parameters(), x),
                setup.step(other, owner.parameters(), x),
            )
