"""What every attention module shares: the contract and the identity start."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_attn.errors import InputError


class Attention(BaseModule):
    """A layer that keeps the shape ``(N, C, H, W)`` of a feature map.

    A subclass sets ``_abbr_``, the attribute and checkpoint name under which
    a host holds it; takes ``in_channels`` first and everything else by
    keyword with the paper's default; and ends its constructor with
    ``self.init_weights()``.

    Args:
        in_channels: C, the channels of the feature map.

    Raises:
        ValueError: ``in_channels`` is not a positive integer.
    """

    _abbr_ = 'attention'

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = self._positive('in_channels', in_channels)

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

    @classmethod
    def _odd(cls, name: str, value: int) -> int:
        """The value, if it is a positive odd integer."""
        cls._check(cls._positive(name, value) % 2 == 1, name, 'odd', value)
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
        """Whether a fresh module leaves its input as it is.

        One that adds starts at zero; one that multiplies needs its switch.
        """
        gates = [m for m in self.modules() if isinstance(m, Gate)]
        return all(gate.alpha is not None for gate in gates)

    def init_weights(self) -> None:
        """Initialise as in the paper; here, torch's own defaults.

        A host runs this after its Kaiming pass over every convolution, which
        would otherwise decide how a plugin starts.
        """
        for child in self.children():
            if isinstance(child, Attention):
                child.init_weights()
                continue
            for module in child.modules():
                if hasattr(module, 'reset_parameters'):
                    module.reset_parameters()


class Gate(Attention):
    r"""Attention that multiplies: :math:`y = x \cdot g(x)`.

    With ``identity_init`` the map is :math:`1 + \alpha (g(x) - 1)` with one
    learnable scalar :math:`\alpha`, zero at the start: inserted into a
    trained network it changes no output by a single bit, and at
    :math:`\alpha = 1` it is the paper's module exactly. Without it, the
    module and its parameters are the paper's.

    Weights of the paper's module, which know no ``alpha``, load into either;
    ``alpha`` is then 1. A module without any (SimAM, SEVar1) cannot notice
    them: leave ``identity_init`` off where a network was trained with it.

    Args:
        in_channels: C, the channels of the feature map.
        identity_init: Start as the identity.
    """

    def __init__(self, in_channels: int, identity_init: bool = False) -> None:
        super().__init__(in_channels)
        alpha = nn.Parameter(torch.zeros(())) if identity_init else None
        self.register_parameter('alpha', alpha)

    @abstractmethod
    def gate(self, x: Tensor) -> Tensor:
        """The paper's map g(x), of a shape that broadcasts to x."""

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return x * self._blend(gate.new_ones(()), gate).to(x.dtype)

    def _blend(self, identity: Tensor, paper: Tensor) -> Tensor:
        """From the identity at alpha = 0 to the paper's value at alpha = 1."""
        if self.alpha is None:
            return paper
        # lerp, unlike the written-out sum, is exact at both ends.
        return torch.lerp(identity, paper, self.alpha.to(paper.dtype))

    def init_weights(self) -> None:
        super().init_weights()
        if self.alpha is not None:
            nn.init.zeros_(self.alpha)

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


def zero_biases(*modules: nn.Module) -> None:
    """Zero the biases of the convolutions and linear layers inside."""
    for module in modules:
        for layer in module.modules():
            if not isinstance(layer, (nn.Conv2d, nn.Linear)):
                continue
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
