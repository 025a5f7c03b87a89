"""How the benchmark runs a network: device, precision, direction."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmdet_attn.cost.timing import Step, peak_mib, time_pair


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


class Setup(NamedTuple):
    """How every step is run."""

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
    ) -> Step:
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

    def measure(self, case: Case, rounds: int) -> dict[str, Any]:
        """Time and memory of a case, by name."""
        return {
            'name': case.name,
            'size': case.size,
            'mode': 'forward+backward' if self.backward else 'forward',
            'params': case.params,
            **time_pair(case.step, case.other, rounds),
            'mib': peak_mib(case.step, self.device),
            'other_mib': peak_mib(case.other, self.device),
        }
