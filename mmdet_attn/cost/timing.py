"""Time and memory of two ways to compute the same, measured side by side."""

import ctypes
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

from mmdet_attn.cost.counts import Counts, Run, count

Step = Callable[[], object]


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

    def autocast(self, function: Callable) -> Callable:
        """The function, which ends with an input, in this precision."""

        def run(*args: Any) -> Any:
            kind, enabled = args[-1].device.type, self.amp is not None
            with torch.autocast(kind, self.amp, enabled=enabled):
                return function(*args)

        return run

    def step(self, run: Run, module: nn.Module, x: Tensor) -> Step:
        """A forward pass without gradients, or one with all of them."""
        function: Callable = partial(run, module)
        if self.compile:
            function = torch.compile(function)
        forward = self.autocast(function)
        leaves = [p for p in (x, *module.parameters()) if p.requires_grad]

        def train() -> Any:
            y = forward(x)
            outputs = y if isinstance(y, (tuple, list)) else [y]
            outputs = [z for z in outputs if z.requires_grad]
            ones = [torch.ones_like(z) for z in outputs]
            return torch.autograd.grad(
                outputs, leaves, ones, allow_unused=True
            )

        if self.backward:
            return train
        return torch.no_grad()(partial(forward, x))

    def counts(self, run: Run, module: nn.Module, x: Tensor) -> Counts:
        """The counts of the step, on a CPU whatever the device."""
        run, counter = self.autocast(run), count
        if self.compile:
            # Its import takes seconds.
            from mmdet_attn.cost.compiled import count_compiled as counter
        return counter(module, x, backward=self.backward, run=run)


def keep_memory() -> None:
    """Tell glibc's malloc to keep freed memory, on a CPU.

    It gives large buffers back to the system at once. The page faults of
    fresh ones can take seven times as long as a pass over a feature map.
    Without glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if sys.platform != 'linux' or mallopt is None:
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**28)


def time_pair(
    step: Step, other: Step, rounds: int = 7, limit_s: float = 120
) -> dict[str, float]:
    """Time two steps in turn, A B A B, after one of each to warm up.

    Args:
        step: The step to measure.
        other: The step to measure it against.
        rounds: Rounds of both. Short steps are repeated within a round.
        limit_s: No round starts after this many seconds, except for the
            first three.

    Returns:
        Medians over the rounds: milliseconds of the step (`ms`) and of the
            other one (`other_ms`), and their `ratio` within a round, with
            its quartiles (`low`, `high`); and the number of `rounds`.
    """
    threads = torch.get_num_threads()
    timers = [
        Timer('step()', globals={'step': s}, num_threads=threads)
        for s in (step, other)
    ]
    first = sum(timer.timeit(1).mean for timer in timers)
    number = max(1, int(0.1 / first))
    times: list[tuple[float, ...]] = []
    while len(times) < rounds:
        if len(times) >= 3 and number * sum(map(sum, times)) > limit_s:
            break
        times.append(tuple(timer.timeit(number).mean for timer in timers))
    ours, theirs = map(statistics.median, zip(*times, strict=True))
    ratios = [a / b for a, b in times]
    low, ratio, high = statistics.quantiles(ratios, method='inclusive')
    return {
        'ms': 1e3 * ours,
        'other_ms': 1e3 * theirs,
        'ratio': ratio,
        'low': low,
        'high': high,
        'rounds': len(times),
    }


def peak_mib(step: Step, device: str) -> float:
    """The most memory that a step holds at once, in MiB.

    What was there before does not count. The numbers are those of torch's
    allocators.
    """
    step()
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Otherwise the profiler reports its own starts and stops on stderr.
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        result = step()
    del result
    events = [
        (e.start_ns(), e.nbytes())
        for e in p.profiler.kineto_results.events()
        if e.name() == '[memory]'
    ]
    held = top = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        top = max(top, held)
    return top / 2**20
