"""Pretrained weights of a backbone with attention: all, or an error."""

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.weights import torchvision
from mmdet_attn.weights.account import Account
from mmdet_attn.weights.safe import read_checkpoint, state_dict_of


@WEIGHT_INITIALIZERS.register_module()
class AttentionPretrained:
    """Load a backbone's weights, and account for every one of its plugins.

    ``init_cfg=dict(type='mmdet_attn.AttentionPretrained',
    checkpoint='torchvision://resnet50')`` in a backbone of mmdet, mmseg or
    ours. The host's own weights must all be there; a classifier's may be
    extra. A plugin whose weights are there gets them, and a gate with
    ``identity_init`` that has them has ``alpha = 1``; without weights it must
    start as the identity. A table in the log says which did what.

    Args:
        checkpoint: Any address that mmengine knows, or a file. It is read
            safely; ``module.`` and ``backbone.`` in front of keys and
            ``state_dict`` or ``model`` around them are taken off.
        prefix: Take only the keys that start so, instead of ``backbone.``.
        missing: What to do about a plugin that has no weights and does not
            start as the identity: ``'identity'`` refuses it, ``'fresh'``
            trains it from its random start, but never in a frozen stage.

    Raises:
        InputError: Something is missing, left over or of another shape; the
            weights are of another network; a plugin would start, or stay,
            random. Before training starts, and with the way out.
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
        torchvision.register()
        content = read_checkpoint(self.checkpoint)
        state = self._backbone_part(state_dict_of(content))
        account = Account(self.checkpoint, state, backbone)
        source = (content.get('meta') or {}).get('source')
        account.check(self.missing, source)
        fitting = {k: v for k, v in state.items() if k in account.own}
        backbone.load_state_dict(fitting, strict=False)
        if hasattr(backbone, '_params_init_info'):  # for mmengine's own log
            origin = f'AttentionPretrained: loaded from {self.checkpoint}'
            update_init_info(backbone, init_info=origin)
        # mmengine initialises children after their parent, unless they say
        # that they are initialised already.
        for module in backbone.modules():
            if hasattr(module, 'init_weights') and module is not backbone:
                setattr(module, 'is_init', True)  # noqa: B010
        print_log(account.report(), 'current')

    def _backbone_part(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        prefix = self.prefix
        if prefix is None:
            inside = any(key.startswith('backbone.') for key in state)
            prefix = 'backbone.' if inside else ''
        part = {
            key[len(prefix) :].removeprefix('.'): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        if not part:
            first = next(iter(state), 'nothing at all')
            raise InputError(
                f'AttentionPretrained: {self.checkpoint} has no key that '
                f'starts with {prefix!r}: {first}.'
            )
        return part
