"""Pretrained weights of a backbone with attention: all, or an error."""

import re
from collections import Counter

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import Fit
from mmdet_attn.weights.load import (
    backbone_part,
    read_checkpoint,
    state_dict_of,
)
from mmdet_attn.weights.plugins import refuse_frozen


@WEIGHT_INITIALIZERS.register_module()
class AttentionPretrained:
    """Load the weights of a backbone and account for each of its plugins.

    Write `init_cfg=dict(type='mmdet_attn.AttentionPretrained',
    checkpoint='torchvision://resnet50')` in a backbone of mmdet, mmseg or
    this package. The checkpoint must have all weights of the host; it may
    have those of a classifier too. A plugin whose weights are there gets
    them, and a gate with `identity_init` then has `alpha = 1`. A plugin
    without weights must start as the identity. A table in the log says how
    each plugin starts.

    Args:
        checkpoint: A file or any address that mmengine knows. It is read
            safely. `module.` and `backbone.` in front of keys and
            `state_dict` or `model` around them are taken off.
        prefix: Take only the keys that start so, instead of `backbone.`.
        missing: What to do about a plugin that has no weights and does not
            start as the identity: `'identity'` refuses it, `'fresh'` trains
            it from its random start, but never in a frozen stage.

    Raises:
        InputError: Weights are missing, left over or of another shape; the
            weights are of another network; or a plugin would start or stay
            random. This is raised before training starts.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        missing: str = 'identity',
    ) -> None:
        if missing not in ('identity', 'fresh'):
            raise InputError(
                "AttentionPretrained: missing must be 'identity' or 'fresh', "
                f'got {missing!r}.'
            )
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.missing = missing

    def __call__(self, backbone: nn.Module) -> None:
        if hasattr(backbone, 'backbone'):
            raise InputError(
                'AttentionPretrained: it goes into the init_cfg of a '
                f'backbone, not of {type(backbone).__name__}.'
            )
        name = f'AttentionPretrained: {self.checkpoint}'
        content = read_checkpoint(self.checkpoint)
        everything = state_dict_of(content)
        state = backbone_part(everything, self.prefix)
        if not state:
            first = next(iter(everything), 'nothing at all')
            raise InputError(
                f'{name} has no key that starts with '
                f'{self.prefix or "backbone."!r}: {first}.'
            )
        fit = Fit(
            backbone,
            state,
            optional=('identity', 'fresh', 'no weights'),
            part=True,
            trained_with=(content.get('meta') or {}).get('source'),
        )
        if problem := fit.problem():
            raise InputError(f'{name}: {problem}')
        fresh = {
            path: fit.plugins[path]
            for path, status in fit.status.items()
            if status == 'fresh'
        }
        refuse_frozen(fresh)
        if fresh and self.missing == 'identity':
            raise InputError(
                f'{name} has no weights for {len(fresh)} plugin(s), '
                f'{next(iter(fresh))} first, which would start at random: set '
                'identity_init=True in their cfg, give weights that have '
                "them, or missing='fresh' to train them from there."
            )
        fitting = {k: v for k, v in state.items() if k in fit.own}
        backbone.load_state_dict(fitting, strict=False)
        if hasattr(backbone, '_params_init_info'):  # for mmengine's own log
            origin = f'AttentionPretrained: loaded from {self.checkpoint}'
            update_init_info(backbone, origin)
        # mmengine initialises children after their parent, unless they say
        # that they are initialised already.
        for module in backbone.modules():
            if hasattr(module, 'init_weights') and module is not backbone:
                setattr(module, 'is_init', True)  # noqa: B010
        print_log(self._table(fit), 'current')

    def _table(self, fit: Fit) -> str:
        """How plugins start, with the blocks of a stage in one row."""
        rows = Counter(
            (re.sub(r'\.\d+\.', '.*.', path), status)
            for path, status in fit.status.items()
        )
        width = max([len(path) for path, _ in rows], default=0)
        lines = [f'AttentionPretrained: {self.checkpoint}']
        lines += [
            f'  {path:{width}}  {count:2d}  {status}'
            for (path, status), count in rows.items()
        ]
        unused = {key.split('.')[0] for key in fit.state.keys() - fit.own}
        if unused:
            lines.append(f'  not used: {", ".join(sorted(unused))}')
        return '\n'.join(lines)
