"""What a computation costs after `torch.compile`, counted like `count`.

Inductor's scheduler says which operations it fuses, and what each of its
kernels reads and writes. Nothing is generated and nothing is run after that:
the C++ compiler takes minutes for a network, and counts nothing.
"""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdet_attn.cost.counts import Counts, Run, imagine, one_pass


class ScheduledError(Exception):
    """Ends a compilation once its kernels are known."""


def count_compiled(
    module: nn.Module,
    *inputs: Any,
    backward: bool = False,
    run: Run = nn.Module.__call__,
) -> Counts:
    """Count one pass of a compiled module; the arguments are those of `count`.

    The kernels are those that Inductor makes for a CPU. A part that cannot be
    compiled into the same graph is an error.
    """
    graphs: list[list[int]] = []

    def schedule(nodes: list) -> None:
        graphs.append(
            [
                node.get_read_write_buffers_sizes()
                for node in nodes
                if type(node).__name__ != 'NopKernelSchedulerNode'
            ]
        )
        raise ScheduledError

    def look(graph: fx.GraphModule, examples: list, **kwargs: Any) -> Any:
        plain = fx.GraphModule(graph, deepcopy(graph.graph))
        changes = {
            '_post_fusion_custom_pass': schedule,
            'fx_graph_cache': False,
        }
        before = len(graphs)
        try:
            with config.patch(changes):
                compile_fx_inner(graph, examples, **kwargs)
        except Exception:
            # Versions of torch wrap the exception differently.
            if len(graphs) == before:
                raise
        return make_boxed_func(plain.forward)

    mode = FakeTensorMode()
    module, *inputs = imagine(mode, module, *inputs)
    torch.compiler.reset()
    compiled = torch.compile(
        partial(run, module),
        fullgraph=True,
        backend=partial(compile_fx, inner_compile=look),
    )
    with mode:
        kept = one_pass(
            module, inputs, backward, lambda _, *inputs: compiled(*inputs)
        )
    return Counts(sum(map(sum, graphs)), sum(map(len, graphs)), kept)
