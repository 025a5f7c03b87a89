"""Time and memory of two ways to compute the same, measured side by side."""

import ctypes
import os
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

Run = Callable[[], object]


class Comparison(NamedTuple):
    """Medians over the rounds; ``low`` and ``high`` are ratio quartiles."""

    ms: float
    other_ms: float
    ratio: float
    low: float
    high: float
    rounds: int


def keep_memory() -> None:
    """Tell glibc's malloc to keep what is freed, on a CPU.

    It gives large buffers back to the system at once, and the page faults of
    fresh ones can take seven times as long as a pass over the map. Elsewhere
    than with glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if sys.platform != 'linux' or mallopt is None:
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**28)


def compare(
    run: Run, other: Run, rounds: int = 7, limit_s: float = 120
) -> Comparison:
    """Time two runs in turn, A B A B, after one of each to warm up.

    Args:
        run: What is to be measured.
        other: What it is measured against.
        rounds: Of both; short runs are repeated within a round.
        limit_s: No round starts after this many seconds, but three are run.
    """
    timers = [
        Timer('run()', globals={'run': r}, num_threads=torch.get_num_threads())
        for r in (run, other)
    ]
    first = sum(timer.timeit(1).mean for timer in timers)
    number = max(1, int(0.1 / first))
    times: list[tuple[float, float]] = []
    while len(times) < rounds:
        if len(times) >= 3 and number * sum(map(sum, times)) > limit_s:
            break
        pair = [timer.timeit(number).mean for timer in timers]
        times.append((pair[0], pair[1]))
    ratios = [a / b for a, b in times]
    low, _, high = statistics.quantiles(ratios, n=4, method='inclusive')
    own, others = (
        statistics.median(part) for part in zip(*times, strict=True)
    )
    return Comparison(
        1e3 * own,
        1e3 * others,
        statistics.median(ratios),
        low,
        high,
        len(times),
    )


def peak_mib(run: Run, device: str) -> float:
    """The most memory that a run holds at once beyond what was there, in MiB.

    As torch's allocators count it.
    """
    run()
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Else the profiler reports its own starts and stops on stderr.
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        result = run()
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
