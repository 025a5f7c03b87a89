"""What a converter is: data about the checkpoints of one source."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.rename import Rules, renamed
from mmdet_attn.weights.infer_backbone import State


@dataclass(frozen=True)
class Source:
    """The checkpoints of one source, and how they get the names used here.

    Attributes:
        name: What the command line calls it.
        description: Which files of whom.
        rules: What official keys become, or a function of the weights that
            tells it.
        make_cfg: Makes the config of `backbone_cfg` from the weights.
        alias: What the rules see of a key.
        check: Refuses weights that are of this source and cannot be used.
        reshape: Makes the tensor for a new name from the official one.
        plain: Whether the networks have no attention. Then a config may have
            modules that start as the identity.
    """

    name: str
    description: str
    rules: Rules | Callable[[State], Rules]
    make_cfg: Callable[[State], dict[str, Any]]
    alias: Callable[[str], str] = str
    check: Callable[[State], object] = bool
    reshape: Callable[[str, Tensor], Tensor] = lambda name, value: value
    plain: bool = False

    def convert(self, state: State) -> dict[str, Tensor]:
        """Tensors under official names to tensors under ours.

        Raises:
            InputError: The weights are not of this source.
        """
        with self._named():
            self.check(state)
            rules = self.rules(state) if callable(self.rules) else self.rules
            return {
                name: self.reshape(name, value)
                for name, value in renamed(state, rules, self.alias).items()
            }

    def backbone_cfg(self, state: State) -> dict[str, Any]:
        """The config of the backbone that the converted weights fit.

        Or of the detector, where the weights are of a whole one.

        Args:
            state: Tensors under official names.

        Raises:
            InputError: No backbone of ours or MMDetection's takes them.
        """
        with self._named():
            return self.make_cfg(state)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Put the name of the source in front of errors."""
        try:
            yield
        except InputError as error:
            raise InputError(f'{self.name}: {error}') from None
