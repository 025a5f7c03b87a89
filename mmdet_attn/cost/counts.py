"""What a computation costs on every machine alike: bytes, kernels, memory.

Three figures are counted, not measured:

- `moved`: the bytes that operations read and write. An operation reads each
  operand once and writes each result once, whatever a cache may hold.
- `kernels`: the operations that do so. Views, allocations and what only asks
  for a shape are free.
- `kept`: the bytes that the forward pass keeps for the backward pass,
  without the parameters and buffers. Tensors that share memory count once.

Only shapes matter, so `count` runs on tensors without memory: a network is
counted in a second.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

# From a module and its inputs to tensors.
Run = Callable[..., Any]
# These write into a tensor without reading it.
OVERWRITES = ('copy_', 'fill_', 'zero_', 'normal_', 'uniform_', 'bernoulli_')


class Counts(NamedTuple):
    """Bytes moved, kernels, and bytes kept for the backward pass."""

    moved: int
    kernels: int
    kept: int


class Counter(TorchDispatchMode):
    """Adds up what the operations within it move.

    Attributes:
        moved: Bytes read and written so far.
        kernels: Operations so far that read or wrote.
        operations: Name and bytes of each of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, int]] = []

    @property
    def moved(self) -> int:
        return sum(size for _, size in self.operations)

    @property
    def kernels(self) -> int:
        return len(self.operations)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.rpartition('::')[2]
        if 'empty' not in name:
            read, written = _operands(func, name, args, kwargs, result)
            if written:
                size = sum(map(_bytes, read)) + sum(map(_bytes, written))
                self.operations.append((str(func), size))
        return result


def _operands(
    func: Any, name: str, args: Any, kwargs: Any, result: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """What an operation reads, and what it writes."""
    read, written = [], []
    for index, argument in enumerate(func._schema.arguments):
        value = kwargs.get(argument.name)
        value = args[index] if index < len(args) else value
        tensors = _tensors(value)
        alias = argument.alias_info
        changes = alias is not None and alias.is_write
        written += tensors if changes else []
        only_written = argument.is_out or (changes and name in OVERWRITES)
        read += [] if only_written else tensors
    if name.startswith('new_') or name.endswith('_like'):
        read = []
    given = {_storage(x) for x in read + written}
    # A result in the memory of an operand is a view of it.
    written += [x for x in _tensors(result) if _storage(x) not in given]
    return _distinct(read), _distinct(written)


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in tree_leaves(value) if isinstance(x, Tensor)]


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """One of the tensors that are the same part of the same memory."""
    found = {
        (_storage(x), x.storage_offset(), x.shape, x.stride()): x
        for x in tensors
    }
    return [*found.values()]


def _bytes(x: Tensor) -> int:
    """The bytes of its elements; those of an expanded tensor count once."""
    sizes = zip(x.shape, x.stride(), strict=True)
    return x.itemsize * prod(size for size, stride in sizes if stride)


@contextmanager
def kept_tensors(module: nn.Module) -> Iterator[Callable[[], int]]:
    """Watch what autograd saves.

    Args:
        module: Its parameters and buffers are not counted.

    Yields:
        A function that returns the bytes that are kept at the time.
    """
    own = {_storage(x) for x in (*module.parameters(), *module.buffers())}
    found: dict[int, tuple[StorageWeakRef, int]] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            # The weak reference keeps the address from being used again.
            entry = StorageWeakRef(storage), storage.nbytes()
            found.setdefault(storage._cdata, entry)
        # A result itself would keep its graph, and the graph the result.
        return x.detach()

    def kept() -> int:
        return sum(size for weak, size in found.values() if not weak.expired())

    with saved_tensors_hooks(pack, lambda x: x):
        yield kept


def count(
    module: nn.Module,
    *inputs: Any,
    backward: bool = False,
    run: Run = nn.Module.__call__,
) -> Counts:
    """Count one pass of a module, a block or a network.

    Args:
        module: What to count, in the mode in which it runs.
        inputs: What it takes.
        backward: Count a forward and a backward pass. Gradients are those of
            all parameters and inputs that require one. Without it the
            forward pass is counted alone, and nothing is kept.
        run: What to do with the module and its inputs.
    """
    mode = FakeTensorMode()
    module, *inputs = imagine(mode, module, *inputs)
    with mode, Counter() as counter:
        kept = one_pass(module, inputs, backward, run)
    return Counts(counter.moved, counter.kernels, kept)


def imagine(mode: FakeTensorMode, module: nn.Module, *inputs: Any) -> Any:
    """A module and its inputs with tensors of a CPU that have no memory."""

    def shape_of(x: Tensor) -> Tensor:
        y = x.detach().cpu()
        if isinstance(x, nn.Parameter):
            y = nn.Parameter(y, x.requires_grad)
        return mode.from_tensor(y.requires_grad_(x.requires_grad))

    own = (*module.parameters(), *module.buffers())
    twin = deepcopy(module, {id(x): shape_of(x) for x in own})
    return twin, *tree_map_only(Tensor, shape_of, inputs)


def one_pass(
    module: nn.Module, inputs: Iterable, backward: bool, run: Run
) -> int:
    """Run once; return the bytes kept between forward and backward."""
    leaves = [*_tensors(inputs), *module.parameters()]
    leaves = [x for x in leaves if x.requires_grad]
    with torch.set_grad_enabled(backward), kept_tensors(module) as kept:
        results = _tensors(run(module, *inputs))
    bytes_kept = kept()
    if backward:
        results = [y for y in results if y.requires_grad]
        ones = [torch.empty_like(y) for y in results]
        torch.autograd.grad(results, leaves, ones, allow_unused=True)
    return bytes_kept
