"""Try converted weights on the model that they are for."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdet_attn.config_files import load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.insertion import wraps
from mmdet_attn.weights.fit import load_strictly


def check_fit(
    cfg: Mapping[str, Any],
    converted: Mapping[str, Tensor],
    plain: bool = False,
    source: str | None = None,
) -> None:
    """Build a model and load the weights into it, strictly.

    Args:
        cfg: The config of a backbone, or of a detector if the keys are.
        converted: The weights, under our names.
        plain: Whether they are of a network without attention, so that
            modules may be missing which start as the identity.
        source: Whose they are.

    Raises:
        InputError: The weights do not fit, or would not be used.
    """
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    model = MODELS.build(dict(cfg))
    state = dict(converted)
    if not any(key.startswith('backbone.') for key in state):
        # The causes of a misfit speak of a backbone in a detector.
        model = nn.ModuleDict(dict(backbone=model))
        state = {f'backbone.{key}': value for key, value in state.items()}
    optional = ('identity',) if plain else ()
    load_strictly(model, state, 'Nothing was written.', optional, source)


def target_cfg(config: str, converted: Mapping[str, Tensor]) -> dict[str, Any]:
    """The part of a config file that the weights are for.

    Raises:
        InputError: It has no such part.
    """
    model = load_config_file(config).get('model') or {}
    whole = any(key.startswith('backbone.') for key in converted)
    part = model if whole else model.get('backbone')
    if not part:
        raise InputError(f'{config} has no model with a backbone.')
    return part


def untested_differences(
    trained: Mapping[str, Any], given: Mapping[str, Any]
) -> list[str]:
    """List differences of two backbones that no tensor's shape shows.

    Args:
        trained: The config of the backbone that the weights are of.
        given: The config that they are loaded into.
    """

    def settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
        while wraps(cfg):
            cfg = cfg['host']
        return {
            'style': cfg.get('style', 'pytorch'),
            'strides': tuple(cfg.get('strides', (1, 2, 2, 2))),
            'dcn.lambda_': (cfg.get('dcn') or {}).get('lambda_'),
        }

    ours = settings(given)
    return [
        f'trained with {name}={value}, the config has {ours[name]}'
        for name, value in settings(trained).items()
        if value != ours[name]
    ]
