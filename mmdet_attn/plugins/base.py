"""The contract and the identity start of all attention modules."""

import contextlib
import functools
import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins.residual import scale


class ShowArguments:
    """A layer that checks its arguments, and whose `repr` shows them.

    `print(model)` shows `ECA(64, kernel_size=3)` instead of the layers
    inside: the first argument, and the others that differ from their default.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if '__init__' in cls.__dict__:
            cls.__init__ = _keep_arguments(cls.__init__)  # type: ignore

    @classmethod
    def _check(cls, good: bool, name: str, rule: str, value: Any) -> None:
        """Refuse an argument with its name, its rule and its value."""
        if not good:
            raise InputError(
                f'{cls.__name__}: {name} must be {rule}, got {value!r}.'
            )

    @classmethod
    def _positive(cls, name: str, value: int) -> int:
        """The value, if it is a positive integer."""
        good = isinstance(value, int) and not isinstance(value, bool)
        cls._check(good and value > 0, name, 'a positive integer', value)
        return value

    def __repr__(self) -> str:
        args, kwargs = self.__dict__['_arguments']
        signature = inspect.signature(type(self))
        first = next(iter(signature.parameters))
        shown = []
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                shown += [repr(item) for item in value]
            elif parameter.kind is parameter.VAR_KEYWORD:
                shown += [f'{key}={item!r}' for key, item in value.items()]
            elif name == first:
                shown.append(repr(value))
            elif value != parameter.default:
                shown.append(f'{name}={value!r}')
        return f'{type(self).__name__}({", ".join(shown)})'


def _keep_arguments(init: Callable) -> Callable:
    @functools.wraps(init)
    def wrapped(self: ShowArguments, *args: Any, **kwargs: Any) -> None:
        # The constructor of a base class must not replace them.
        self.__dict__.setdefault('_arguments', (args, kwargs))
        try:
            init(self, *args, **kwargs)
        except TypeError as error:
            # An argument that is unknown or missing stays a TypeError.
            with contextlib.suppress(TypeError):
                inspect.signature(init).bind(self, *args, **kwargs)
                raise InputError(
                    f'{type(self).__name__}: an argument of {self!r} has a '
                    f'wrong type: {error}.'
                ) from error
            raise

    return wrapped


class Attention(ShowArguments, BaseModule):
    """A layer that keeps the shape `(N, C, H, W)` of a feature map.

    A subclass sets `_abbr_`, the attribute and checkpoint name under which a
    host holds it. Its first argument is `in_channels`. All other arguments
    have the paper's defaults. Its constructor ends with
    `self.init_weights()`.

    Args:
        in_channels: The number of channels $C$.

    Raises:
        InputError: `in_channels` is not a positive integer.
    """

    _abbr_ = 'attention'

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = self._positive('in_channels', in_channels)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """From a map `(N, C, H, W)` to one of the same shape."""

    @classmethod
    def _odd(cls, name: str, value: int) -> int:
        """The value, if it is a positive odd integer."""
        cls._check(cls._positive(name, value) % 2 == 1, name, 'odd', value)
        return value

    @classmethod
    def _finite(cls, name: str, value: float) -> float:
        """The value, if it is neither NaN nor infinite."""
        cls._check(math.isfinite(value), name, 'finite', value)
        return value

    @classmethod
    def _one_of(cls, name: str, value: str, choices: Iterable[str]) -> str:
        """The value, if it is one of the choices."""
        rule = 'one of ' + ', '.join(map(repr, choices))
        cls._check(value in choices, name, rule, value)
        return value

    @classmethod
    def _hidden(cls, in_channels: int, reduction: int) -> int:
        """C / r, the hidden channels; at least one."""
        return max(1, in_channels // cls._positive('reduction', reduction))

    @property
    def starts_as_identity(self) -> bool:
        """Whether a fresh module returns its input.

        Modules that add start at zero. Modules that multiply, and
        `LSKUnit`, need `identity_init=True`.
        """
        gates = [m for m in self.modules() if isinstance(m, Gate)]
        return all(gate.alpha is not None for gate in gates)

    def init_weights(self) -> None:
        """Initialise as in the paper; here, with torch's defaults.

        A host calls this after it has initialised every convolution itself,
        which would otherwise replace the paper's start.
        """
        for child in self.children():
            if isinstance(child, Attention):
                child.init_weights()
                continue
            for module in child.modules():
                if hasattr(module, 'reset_parameters'):
                    module.reset_parameters()


class Gate(Attention):
    r"""Attention that multiplies: y = x g(x).

    $$
    y = x \cdot (1 + \alpha (g(x) - 1))
    $$

    The map $g(x)$ is the paper's; `gate(x)` returns it. $\alpha$ is one
    learnable number, zero at the start, and is there with `identity_init`
    only. At $\alpha = 0$ the module returns its input bit for bit: inserted
    into a trained network, it changes no output. At $\alpha = 1$ it is the
    paper's module exactly.

    Weights of the paper's module have no `alpha`. They load into either form,
    and `alpha` is then 1. SimAM and SEVar1 have no weights, so they cannot
    know that they were trained: leave `identity_init` off for a network that
    was trained with them.

    Args:
        in_channels: The number of channels $C$.
        identity_init: Start as the identity.

    Raises:
        InputError: `in_channels` is not a positive integer.
    """

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels)
        alpha = nn.Parameter(torch.zeros(())) if identity_init else None
        self.register_parameter('alpha', alpha)
        self._one: Any
        one = torch.ones(()) if identity_init else None
        self.register_buffer('_one', one, persistent=False)

    @abstractmethod
    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to the map $g(x)$, which broadcasts to it."""

    def factor(self, x: Tensor) -> Tensor:
        r"""From `(N, C, H, W)` to the map by which the gate multiplies.

        $$
        f(x) = 1 + \alpha (g(x) - 1)
        $$

        Without `alpha` it is $g(x)$. It broadcasts to `x`, as `gate(x)` does.
        A ReLU follows in `GSoP` by position, a shuffle in `ShuffleAttention`.
        """
        gate = self.gate(x)
        return self._blend(self._one, gate)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map and a factor. Their product is what `forward` returns.

        The blocks of `AttentionResNet` multiply and add in one pass. A
        subclass with a `forward` of its own that has no `split` of its own is
        called there as everywhere.
        """
        return x, self.factor(x)

    def forward(self, x: Tensor) -> Tensor:
        r"""From `(N, C, H, W)` to $x \cdot f(x)$ of the same shape."""
        return scale(x, self.factor(x).to(x.dtype))

    def _blend(self, identity: Tensor, paper: Tensor) -> Tensor:
        """The identity at alpha = 0, the paper's value at alpha = 1."""
        if self.alpha is None:
            return paper
        dtype = paper.dtype
        # lerp, unlike the written-out sum, is exact at both ends.
        return torch.lerp(identity.to(dtype), paper, self.alpha.to(dtype))

    def init_weights(self) -> None:
        super().init_weights()
        if self.alpha is not None:
            nn.init.zeros_(self.alpha)
            nn.init.ones_(self._one)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        key = prefix + 'alpha'
        own = any(name.startswith(prefix) for name in state_dict)
        if self.alpha is not None and own and key not in state_dict:
            state_dict[key] = torch.ones_like(self.alpha)
        super()._load_from_state_dict(state_dict, prefix, *args)


def zero_weight(layer: nn.Module) -> None:
    """Zero the weight or scale of a layer, if it has one."""
    if isinstance(weight := getattr(layer, 'weight', None), Tensor):
        nn.init.zeros_(weight)


def normal_fan_out(*modules: nn.Module) -> None:
    """Draw the weights of convolutions from N(0, 2 / fan_out); zero biases.

    The fan is that of one group, unlike in `torch.nn.init.kaiming_normal_`.
    """
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                fan = layer.weight[0, 0].numel() * layer.out_channels
                std = (2 * layer.groups / fan) ** 0.5
                nn.init.normal_(layer.weight, std=std)
    zero_biases(*modules)


def zero_biases(*modules: nn.Module) -> None:
    """Zero the biases of the convolutions and linear layers inside."""
    for module in modules:
        for layer in module.modules():
            if not isinstance(layer, (nn.Conv2d, nn.Linear)):
                continue
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
