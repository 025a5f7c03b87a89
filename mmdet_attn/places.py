"""Places for attention in a network, found by watching it run."""

import copy
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdet_attn.cost.complexity import flops
from mmdet_attn.errors import InputError
from mmdet_attn.insertion import insert
from mmdet_attn.module_names import end_of, find
from mmdet_attn.tracing import Trace, evaluating
from mmdet_attn.weights.plugins import plugins_of

BRANCH = 'end of residual branches'
BLOCK = 'behind residual blocks'
LEVEL = 'end of stages or levels'
HEAD = 'before the predictions'
SUMS = ('add', 'add_')


class Place(NamedTuple):
    """A pattern for `insert`, the modules it finds, and what they are."""

    at: str | list[str]
    names: list[str]
    what: str


def suggest(network: nn.Module, run: Trace, flow: 'Flow') -> list[Place]:
    """Places that `insert` accepts: ends of residual branches and of levels.

    A residual branch ends where its block adds it to the input of the block.
    A level is a map that the network returns. Modules with a plugin or of a
    plugin are left out.

    Args:
        network: The network.
        run: Its trace, as `insert` makes it.
        flow: What it did when it was watched.
    """
    if run.failure is not None:
        return []
    maps = _maps(network, run)
    good = maps - _taken(network, maps)
    found: dict[str, str] = {}
    own = plugins_of(network)
    for block, branch in flow.branches:
        if any(name.startswith(f'{block}.') for name in own):
            continue
        names = [name for name in reversed(branch) if name in good]
        if names:
            found.setdefault(names[0], BRANCH)
        elif block in good:
            found.setdefault(block, BLOCK)
    head = type(network).__name__.endswith('Head')
    for tensor in tensors(flow.output):
        names = flow.ends(tensor, maps, head)
        if last := [name for name in names if name in good][-1:]:
            found.setdefault(last[0], HEAD if head else LEVEL)
    groups = defaultdict(list)
    for name, what in found.items():
        groups[what, re.sub(r'\d+', '#', name)].append(name)
    return [
        Place(pattern(network, names), names, what)
        for (what, _), names in groups.items()
    ]


def pattern(network: nn.Module, names: list[str]) -> str | list[str]:
    """The shortest pattern that finds these modules and no other.

    The names differ in numbers only. Where there is no such pattern, a list
    of patterns is returned.
    """
    wanted = {end_of(network, name) for name in names}
    split = [name.split('.') for name in names]
    columns = [sorted(set(column)) for column in zip(*split, strict=True)]
    for parts in itertools.product(*map(_choices, columns)):
        if _finds(network, '.'.join(parts)) == wanted:
            return '.'.join(parts)
    at = 're:' + re.sub(r'\d+', r'\\d+', re.escape(names[0]))
    if _finds(network, at) == wanted:
        return at
    varying = next(i for i, column in enumerate(columns) if len(column) > 1)
    patterns: list[str] = []
    for part in columns[varying]:
        rest = [n for n in names if n.split('.')[varying] == part]
        inner = pattern(network, rest)
        patterns += [inner] if isinstance(inner, str) else inner
    return patterns


def _finds(network: nn.Module, at: str) -> set[str]:
    try:
        return set(find(network, at))
    except InputError:  # it takes a module and what is in it
        return set()


def _choices(parts: list[str]) -> list[str]:
    """The forms that a part of a pattern may take, the best first."""
    if len(parts) == 1:
        return parts
    start, digits, end = re.split(r'(\d+)', parts[0], maxsplit=1)
    numbers = [part[len(start) : len(part) - len(end)] for part in parts]
    if max(map(len, numbers)) > 1:
        return [f'{start}*{end}']
    digits = ''.join(numbers)
    if len(digits) > 2 and int(digits[-1]) - int(digits[0]) < len(digits):
        digits = f'{digits[0]}-{digits[-1]}'
    return [f'{start}{any_}{end}' for any_ in ('*', '?', f'[{digits}]')]


class Maker(NamedTuple):
    """A module that returned a tensor, and what it was given."""

    name: str
    module: nn.Module
    given: list[Tensor]


class Flow(TorchFunctionMode):
    """Records which module returns each tensor, and which ones are added.

    Attributes:
        branches: For each sum of a residual block the name of the block, and
            the modules that returned its branch, the inner ones first.
        output: What the network returned.
    """

    def __init__(self) -> None:
        super().__init__()
        # By the id of a tensor: the tensor, so that the id stays its own, and
        # its version, which an operation in place changes.
        self.made: dict[int, tuple[Tensor, int, list[Maker]]] = {}
        self.running: list[Maker] = []
        self.branches: list[tuple[str, list[str]]] = []
        self.output: Any = None

    def watch(self, network: nn.Module, inputs: Any) -> None:
        """Run the network once."""
        handles: list[Any] = []
        for name, module in network.named_modules():
            handles += [
                module.register_forward_pre_hook(
                    self._start(name), with_kwargs=True
                ),
                module.register_forward_hook(self._stop),
            ]
        try:
            with evaluating(network), torch.no_grad(), self:
                self.output = network(inputs)
        finally:
            for handle in handles:
                handle.remove()

    def makers(self, tensor: Tensor) -> list[Maker]:
        """The modules that returned the tensor as it is, inner ones first."""
        _, version, makers = self.made.get(id(tensor), (None, -1, []))
        return makers if version == tensor._version else []

    def ends(self, tensor: Tensor, maps: set[str], head: bool) -> list[str]:
        """The last modules before a tensor that returned it as a map.

        Args:
            tensor: What the network returned.
            maps: Names of modules that return maps.
            head: Leave out what comes after the last convolution, and it.
        """
        while makers := [m for m in self.makers(tensor) if m.given]:
            names = [maker.name for maker in makers if maker.name in maps]
            if names and not head:
                return names
            changed = [m for m in makers if not _among(tensor, m.given)]
            if not changed:
                break
            head = head and not isinstance(changed[0].module, nn.Conv2d)
            tensor = changed[0].given[0]
        return []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [*tensors(args)]
        if func.__name__ in SUMS and len(given) == 2 and self.running:
            self._add(*given)
        known = [tensor for tensor in given if self.makers(tensor)]
        output = func(*args, **(kwargs or {}))
        if (
            len(known) == 1
            and isinstance(output, Tensor)
            and not _among(output, given)
            and output.numel() == known[0].numel()
        ):
            makers = self.makers(known[0])
            self.made[id(output)] = (output, output._version, makers)
        return output

    def _start(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            given = [*tensors([args, kwargs])]
            self.running.append(Maker(name, module, given))

        return hook

    def _stop(self, module: nn.Module, args: Any, output: Any) -> None:
        maker = self.running.pop()
        for tensor in tensors(output):
            makers = [*self.makers(tensor), maker]
            if _among(tensor, maker.given):  # such as a dropout in a test
                makers = [maker, *makers[:-1]]
            self.made[id(tensor)] = (tensor, tensor._version, makers)

    def _add(self, one: Tensor, two: Tensor) -> None:
        block = self.running[-1]
        for tensor, other in ((one, two), (two, one)):
            branch = self._inside(tensor, block)
            given = _among(other, block.given)
            if not given and len(block.given) == 1:
                # A shortcut with layers takes the input of the block.
                shortcut = self._inside(other, block)
                direct = self._direct(shortcut, block)
                given = direct and not self._direct(branch, block)
            if given and branch:
                names = [maker.name for maker in branch]
                self.branches.append((block.name, names))

    def _inside(self, tensor: Tensor, block: Maker) -> list[Maker]:
        """The makers of a tensor that ran within a block."""
        start = f'{block.name}.' if block.name else ''
        makers = self.makers(tensor)
        return [m for m in makers if m.name and m.name.startswith(start)]

    def _direct(self, makers: list[Maker], block: Maker) -> bool:
        return any(
            _among(tensor, block.given)
            for maker in makers
            for tensor in maker.given
        )


def _among(tensor: Tensor, tensors: list[Tensor]) -> bool:
    return any(tensor is other for other in tensors)


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from tensors([*values.values()])
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)


def added(
    network: nn.Module, specs: Sequence[Mapping], inputs: Any
) -> tuple[int, int, float]:
    """Count what `insert` would add to a network.

    Args:
        network: The network, which does not change.
        specs: What `insert` takes as `plugins`.
        inputs: What the network takes.

    Returns:
        Parameters, FLOPs, and those FLOPs in percent of the network's.
    """
    larger = insert(copy.deepcopy(network), specs)
    params, counts = [], []
    for model in (network, larger):
        params.append(sum(p.numel() for p in model.parameters()))
        with evaluating(model):
            counts.append(flops(model, inputs))
    more = counts[1] - counts[0]
    return params[1] - params[0], more, 100 * more / counts[0]


def _maps(network: nn.Module, run: Trace) -> set[str]:
    """The modules behind which `insert` finds a map."""
    ends = {name: end_of(network, name) for name in run.seen if name}
    return {
        name
        for name, end in ends.items()
        if end in run.seen and type(run.seen[end].after) is tuple
    }


def _taken(network: Any, names: Iterable[str]) -> set[str]:
    """Those that have a plugin already, or are in one."""
    items = network.insertions.items if hasattr(network, 'insertions') else []
    own = plugins_of(network)
    holders = {item.at for item in items}
    holders |= {name.rpartition('.')[0] for name in own}
    inside = tuple(f'{name}.' for name in own)
    ends = {name: end_of(network, name) for name in names}
    return {
        name
        for name, end in ends.items()
        if end in holders or f'{end}.'.startswith(inside)
    }
