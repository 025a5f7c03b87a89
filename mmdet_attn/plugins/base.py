"""What every attention module shares: the contract and the identity start."""

from abc import abstractmethod

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


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
    def _positive(cls, name: str, value: int) -> int:
        """The value, if it is a positive integer."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f'{cls.__name__}: {name} must be a positive integer, '
                f'got {value!r}.'
            )
        return value

    def init_weights(self) -> None:
        """Initialise as in the paper; here, torch's own defaults.

        A host runs this after its Kaiming pass over every convolution, which
        would otherwise decide how a plugin starts.
        """
        for module in self.modules():
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
    ``alpha`` is then 1.

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
        if self.alpha is not None:
            # lerp, unlike the written-out sum, is exact at both ends.
            alpha = self.alpha.to(gate.dtype)
            gate = torch.lerp(gate.new_ones(()), gate, alpha)
        return x * gate

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
