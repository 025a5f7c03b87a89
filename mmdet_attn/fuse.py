"""Fuse a detector for inference: the same output with less to compute."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from mmdet_attn.errors import InputError
from mmdet_attn.places import tensors
from mmdet_attn.plugins import Gate


class Fused(NamedTuple):
    """How many norms and gates are left out."""

    norms: int
    gates: int

    def __str__(self) -> str:
        return (
            f'Fused {self.norms} batch norms into convolutions, and left out '
            f'{self.gates} gates whose alpha is 0.'
        )


class _Uses(TorchFunctionMode):
    """Records where the outputs of convolutions go.

    Convolutions and norms are known by the ids of a tensor of theirs.

    Attributes:
        users: For each convolution the norms that take its output; None is
            anything else.
        sources: For each norm the convolutions whose output it takes.
        calls: How often each ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: Any = WeakIdKeyDictionary()
        self.users = defaultdict[int, set[int | None]](set)
        self.sources = defaultdict[int, set[int | None]](set)
        self.calls = Counter[int]()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        norm = None
        if func is F.batch_norm:
            norm = id(args[1])  # the running mean
            self.calls[norm] += 1
            self.sources[norm].add(self.made.get(args[0]))
        if any(True for _ in tensors(output)):  # not a shape, for instance
            for tensor in tensors([args, kwargs]):
                if tensor in self.made:
                    self.users[self.made[tensor]].add(norm)
        if func is F.conv2d:
            self.made[output] = id(args[1])  # the weight
            self.calls[id(args[1])] += 1
        return output

    def belong(self, conv: nn.Conv2d, norm: _BatchNorm) -> bool:
        """Whether all that one returns goes to the other, and no more."""
        one, two = id(conv.weight), id(norm.running_mean)
        return (
            self.users[one] == {two}
            and self.sources[two] == {one}
            and self.calls[one] == self.calls[two]
        )


@torch.no_grad()
def fuse(network: nn.Module, run: Callable[[], object]) -> Fused:
    r"""Fuse batch norms into convolutions, and leave gates out.

    A batch norm with fixed statistics $\mu$, $\sigma^2$ behind a convolution
    $w * x + b$ gives it the weight $w \gamma / \sqrt{\sigma^2 + \epsilon}$
    and the bias $(b - \mu) \gamma / \sqrt{\sigma^2 + \epsilon} + \beta$. This
    is done where the norm takes nothing else and nothing else takes the
    output of the convolution. A gate with `alpha` 0 returns its input and is
    left out. With `alpha` 1 it is the paper's module, without `alpha`.

    Args:
        network: A network in eval mode, which changes.
        run: Runs the network once, to see what takes what.
    """
    gates: dict[nn.Module, nn.Module] = {}
    for gate in network.modules():
        if not isinstance(gate, Gate) or gate.alpha is None:
            continue
        if gate.alpha == 0 and type(gate).forward is Gate.forward:
            gates[gate] = nn.Identity().eval()
        elif gate.alpha == 1:
            gate.alpha = None
    _replace(network, gates)
    uses = _Uses()
    with uses:
        run()
    convs = {
        id(m.weight): m for m in network.modules() if isinstance(m, nn.Conv2d)
    }
    norms: dict[nn.Module, nn.Module] = {}
    for norm in network.modules():
        if not isinstance(norm, _BatchNorm) or norm.training:
            continue
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            continue
        for source in uses.sources[id(mean)]:
            conv = convs.get(source or 0)
            if conv is not None and uses.belong(conv, norm):
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    mean,
                    var,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
                norms[norm] = nn.Identity().eval()
                for name, plugin in norm.named_children():
                    norms[norm].add_module(name, plugin)
    _replace(network, norms)
    return Fused(len(norms), len(gates))


def _replace(network: Any, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put new modules in the places of others."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if child in new:
                setattr(parent, name, new[child])
    for module in network.modules():
        if hasattr(module, 'insertions'):
            module.insertions.attach(module, ())


def refuse_exported(checkpoint: str) -> None:
    """Refuse `--fuse` for what is no checkpoint.

    Raises:
        InputError: It is an ONNX file.
    """
    if checkpoint.endswith('.onnx'):
        raise InputError(
            f'--fuse changes a detector in torch, and {checkpoint} is an ONNX '
            'file: leave --fuse out here, and give it to export.'
        )


class FuseHook(Hook):
    """Fuses the detector with the first batch of a test."""

    def before_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None
    ) -> None:
        if batch_idx == 0:
            model = runner.model
            fused = fuse(model, lambda: model.test_step(deepcopy(data_batch)))
            runner.logger.info(str(fused))
