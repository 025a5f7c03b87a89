"""Other starts of gates in a trained detector, to compare in a study."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Attention, Gate
from mmdet_attn.tracing import evaluating


class ScaledGate(Gate):
    r"""A gate that starts at one: $x \cdot g(x) / g_0$.

    The last layer of $g$ starts at zero. Then $g$ is a constant $g_0$, such as
    $\sigma(0) = 1/2$, and the division is exact.

    Args:
        gate: The gate $g$.

    Raises:
        InputError: Without its last layer, $g$ is no power of two.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate.in_channels)
        self.inner = gate
        name = type(gate).__name__
        if gate.alpha is not None:
            raise InputError(
                f'ZeroStart: {name} has identity_init=True, another start: '
                'leave one of the two out.'
            )
        self.init_weights()
        # Values of both signs, which differ from place to place.
        x = torch.linspace(-2, 2, 9 * self.in_channels).view(1, -1, 3, 3)
        with evaluating(gate), torch.no_grad():
            g = gate.gate(x.to(next(gate.parameters(), x)))
        start = g.flatten()[0].item()
        if not (g == start).all() or math.frexp(start)[0] != 0.5:
            raise InputError(
                f'ZeroStart: {name} with its last layer at zero is no '
                f'constant power of two ({g.min():g} to {g.max():g}), so it '
                'cannot start as the identity.'
            )
        self.scale = 1 / start

    def gate(self, x: Tensor) -> Tensor:
        """From `(N, C, H, W)` to $g(x) / g_0$, which broadcasts to it."""
        return self.scale * self.inner.gate(x)

    def init_weights(self) -> None:
        super().init_weights()
        layers = [m for m in self.modules() if [*m.parameters(False)]]
        for parameter in layers[-1].parameters() if layers else ():
            nn.init.zeros_(parameter)


@MODELS.register_module()
class ZeroStart(Attention):
    r"""Gates that start as the identity by zeros in their last layers.

    Each gate in the plugin multiplies by $g(x) / g_0$ instead of $g(x)$, where
    $g_0$ is its constant value without its last layer: $\sigma(0) = 1/2$ in
    SE, ECA and CBAM. So the module returns its input bit for bit at the start.
    It has no other parameters than the plugin.

    ```python
    dict(type='mmdet_attn.ZeroStart', plugin=dict(type='mmdet_attn.SE'))
    ```

    Args:
        in_channels: The number of channels $C$.
        plugin: Type and arguments of a module with gates.

    Raises:
        InputError: The plugin has no gates, or does not become the identity.
    """

    _abbr_ = 'zerostart'

    def __init__(self, in_channels: int, plugin: dict) -> None:
        super().__init__(in_channels)
        self.plugin = MODELS.build({**plugin, 'in_channels': in_channels})
        outer: tuple[str, ...] = ()
        for name, module in [*self.named_modules()]:
            # One with a forward of its own does more than multiply.
            gate = isinstance(module, Gate)
            gate = gate and type(module).forward is Gate.forward
            if gate and not f'{name}.'.startswith(outer):
                outer += (f'{name}.',)
                path, _, leaf = name.rpartition('.')
                setattr(self.get_submodule(path), leaf, ScaledGate(module))
        self.init_weights()
        x = torch.linspace(-2, 2, 9 * in_channels).view(1, -1, 3, 3)
        with evaluating(self), torch.no_grad():
            same = bool(outer) and torch.equal(self(x), x)
        if not same:
            raise InputError(
                f'ZeroStart: {type(self.plugin).__name__} has no gates, or '
                'more than gates, so it cannot start as the identity.'
            )

    @property
    def starts_as_identity(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return self.plugin(x)


@HOOKS.register_module()
class AlphaRampHook(Hook):
    """Drive the alpha of all gates from 0 to 1 instead of learning it.

    After n iterations alpha is n / end, and 1 from `end` on. It depends on
    nothing else, so a resumed training is exact.

    Args:
        end: The iterations after which alpha is 1.

    Raises:
        InputError: `end` is no positive integer, or no gate has an alpha.
    """

    priority = 'VERY_HIGH'  # before checkpoints and evaluations

    def __init__(self, end: int) -> None:
        if type(end) is not int or end < 1:
            raise InputError(
                f'AlphaRampHook: end must be a positive integer, got {end!r}.'
            )
        self.end = end
        self.alphas: list[nn.Parameter] = []

    def before_train(self, runner: Any) -> None:
        gates = [m for m in runner.model.modules() if isinstance(m, Gate)]
        self.alphas = [g.alpha for g in gates if g.alpha is not None]
        if not self.alphas:
            raise InputError(
                'AlphaRampHook: no gate has an alpha: set identity_init=True '
                'in the cfg of the plugins.'
            )
        for alpha in self.alphas:
            # It must not count where gradients are clipped.
            alpha.register_hook(torch.zeros_like)
        self._set(runner.iter)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        self._set(runner.iter + 1)

    def _set(self, done: int) -> None:
        for alpha in self.alphas:
            nn.init.constant_(alpha, min(1, done / self.end))


@HOOKS.register_module()
class EvaluateFirstHook(Hook):
    """Evaluate a detector also before its first step."""

    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        if runner.iter == 0 and runner.val_loop is not None:
            runner.val_loop.run()
