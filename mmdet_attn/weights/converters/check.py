"""Converted weights are tried on the model that they are for."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdet_attn.config_files import load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Attention
from mmdet_attn.plugins.base import Gate
from mmdet_attn.weights.strict import load_strictly


def check_fit(
    cfg: Mapping[str, Any],
    converted: Mapping[str, Tensor],
    plain: bool = False,
) -> None:
    """Build a model and load the weights into it, strictly.

    Args:
        cfg: The config of a backbone, or of a detector if the keys are.
        converted: The weights, under our names.
        plain: Whether they are of a network without attention, so that
            modules may be missing which start as the identity.

    Raises:
        InputError: The weights do not fit, or fit and would not be used.
    """
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    model = MODELS.build(dict(cfg))
    state = dict(converted)
    if not any(key.startswith('backbone.') for key in state):
        # As in a detector: the likely causes are told by its names.
        model = nn.ModuleDict(dict(backbone=model))
        state = {f'backbone.{key}': value for key, value in state.items()}
    for name, module in model.named_modules():
        prefix = f'{name}.'
        if isinstance(module, Attention) and not any(
            key.startswith(prefix) for key in state
        ):
            state |= _missing(prefix, module, plain)
    load_strictly(model, state, 'Nothing was written.')


def _missing(prefix: str, module: Attention, plain: bool) -> dict[str, Tensor]:
    """What stands in for the weights of a module that the file lacks."""
    own = module.state_dict(prefix=prefix)
    if plain and module.starts_as_identity:
        return own
    if (
        not plain
        and isinstance(module, Gate)
        and list(own) == [f'{prefix}alpha']
    ):
        raise InputError(
            f'{prefix[:-1]} has no weights that could tell it from the '
            'identity, as which identity_init=True starts it: set '
            'identity_init=False in the config of these weights.'
        )
    return {}


def model_of(config: str, converted: Mapping[str, Tensor]) -> dict[str, Any]:
    """The part of a config file that the weights are for.

    Raises:
        InputError: It has no such part.
    """
    model = load_config_file(config).get('model') or {}
    if any(key.startswith('backbone.') for key in converted):
        part = model
    else:
        part = model.get('backbone')
    if not part:
        raise InputError(f'{config} has no model with a backbone.')
    return part


def unlike(host: Mapping[str, Any], backbone: Mapping[str, Any]) -> list[str]:
    """What differs between two backbones and shows in no tensor's shape."""

    def settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
        return {
            'style': cfg.get('style', 'pytorch'),
            'strides': tuple(cfg.get('strides', (1, 2, 2, 2))),
            'dcn.lambda_': (cfg.get('dcn') or {}).get('lambda_'),
        }

    trained, given = settings(host), settings(backbone)
    return [
        f'trained with {name}={value}, the config has {given[name]}'
        for name, value in trained.items()
        if value != given[name]
    ]
