"""Pretrained weights of a backbone with attention: all, or an error."""

import re
from collections.abc import Mapping
from typing import NoReturn

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Gate
from mmdet_attn.weights import torchvision
from mmdet_attn.weights.backbone_kind import is_caffe, kind_of
from mmdet_attn.weights.plugins import (
    is_frozen,
    plugins_of,
    refuse_frozen,
    starts_as_identity,
)
from mmdet_attn.weights.safe import read_checkpoint, state_dict_of

CLASSIFIER = re.compile(r'(fc|head|classifier|last_linear)\.')


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
        own = backbone.state_dict()
        plugins = plugins_of(backbone)
        self._check_kind(state, own)
        status = {
            name: self._status(name, plugin, state)
            for name, plugin in plugins.items()
        }
        self._check_keys(state, own, status)
        self._check_weightless(content, plugins, status)
        self._check_starts(plugins, status)
        chosen = {key: value for key, value in state.items() if key in own}
        backbone.load_state_dict(chosen, strict=False)
        if hasattr(backbone, '_params_init_info'):  # for mmengine's own log
            origin = f'AttentionPretrained: loaded from {self.checkpoint}'
            update_init_info(backbone, init_info=origin)
        # mmengine initialises children after their parent, unless they say
        # that they are initialised already.
        for module in backbone.modules():
            if hasattr(module, 'init_weights') and module is not backbone:
                setattr(module, 'is_init', True)  # noqa: B010
        unused = {key.split('.')[0] for key in state.keys() - chosen.keys()}
        print_log(self._report(status, unused), 'current')

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
            self._refuse(f'has no key that starts with {prefix!r}: {first}.')
        return part

    def _check_kind(self, state: Mapping, own: Mapping) -> None:
        wanted = kind_of(own)
        if wanted is None:
            return
        if is_caffe(state) and not is_caffe(own):
            self._refuse(
                'is a caffe-style network (its keys say so), the config a '
                "PyTorch-style one: convert it, or take torchvision's weights."
            )
        found = kind_of(state)
        if found is None:
            self._refuse(
                f'is no ResNet (it has {", ".join(sorted(state)[:3])}, ...); '
                'a file of another library must be converted first.'
            )
        # A host with fewer stages uses only those.
        stages = len(wanted.blocks)
        if found._replace(blocks=found.blocks[:stages]) != wanted:
            self._refuse(
                f'is a {found}, the config a {wanted}: set backbone.depth '
                'and its stem, or give the weights that belong to them.'
            )

    @staticmethod
    def _status(name: str, plugin: nn.Module, state: Mapping) -> str:
        if any(f'{name}.{key}' in state for key in plugin.state_dict()):
            return 'loaded'
        if starts_as_identity(plugin):
            return 'identity'
        return 'fresh' if plugin.state_dict() else 'no weights'

    def _check_keys(
        self, state: Mapping, own: Mapping, status: Mapping[str, str]
    ) -> None:
        def owner(key: str) -> str | None:
            parts = key.split('.')
            paths = ('.'.join(parts[:i]) for i in range(1, len(parts)))
            return next((path for path in paths if path in status), None)

        shapes = [
            k for k in own if k in state and own[k].shape != state[k].shape
        ]
        kernels = self._kernels(shapes, state, own)
        if kernels:
            self._refuse(kernels)
        if shapes:
            key = shapes[0]
            self._refuse(
                f'has {len(shapes)} weights of another shape: {key} is '
                f'{tuple(state[key].shape)} there and {tuple(own[key].shape)} '
                "in the config: give the plugin's cfg the same arguments."
            )
        lacking = [
            key
            for key in own.keys() - state.keys()
            if not key.endswith(('num_batches_tracked', '.alpha'))
            and status.get(owner(key) or '', 'loaded') == 'loaded'
        ]
        if lacking:
            self._refuse(
                f'lacks {len(lacking)} weights, {min(lacking)} first: it is '
                'of another network or cut, or its plugins have other parts.'
            )
        tops = {key.split('.')[0] for key in own}
        extra = [
            key
            for key in state.keys() - own.keys()
            if not CLASSIFIER.match(key)
            and key.split('.')[0] in tops
            # A convolution whose place a fresh plugin has taken.
            and status.get(key.removesuffix('.weight')) != 'fresh'
        ]
        if extra:
            self._refuse(
                f'has {len(extra)} weights that the config has no place for, '
                f'{min(extra)} first: add the plugin that they belong to, or '
                'convert them if they are in the names of their authors.'
            )

    @staticmethod
    def _kernels(shapes: list[str], state: Mapping, own: Mapping) -> str:
        """Another ECA kernel size, named for all stages."""
        eca = re.compile(r'layer(\d+)\.0\..*eca\.conv\.weight$')
        if not any(re.search(r'\beca\.conv\.weight$', key) for key in shapes):
            return ''
        keys = sorted(key for key in own if eca.match(key) and key in state)
        found, wanted = (
            ','.join(str(weights[key].shape[-1]) for key in keys)
            for weights in (state, own)
        )
        return (
            f'has ECA kernels {found} by stage, the config {wanted}: set '
            'kernel_size per stage.'
        )

    def _check_weightless(
        self,
        content: Mapping,
        plugins: Mapping[str, nn.Module],
        status: Mapping[str, str],
    ) -> None:
        """SimAM has no weights by which a gate could know to switch on."""
        source = (content.get('meta') or {}).get('source')
        names = [
            name
            for name, plugin in plugins.items()
            if getattr(plugin, '_abbr_', None) == source
            and status[name] == 'identity'
            and isinstance(plugin, Gate)
        ]
        if source and names:
            self._refuse(
                f'was trained with {source}, and {names[0]} would stay at '
                'identity: set identity_init=False in its cfg.'
            )

    def _check_starts(
        self, plugins: Mapping[str, nn.Module], status: Mapping[str, str]
    ) -> None:
        fresh = [name for name in plugins if status[name] == 'fresh']
        refuse_frozen([name for name in fresh if is_frozen(plugins[name])])
        if fresh and self.missing == 'identity':
            self._refuse(
                f'has no weights for {len(fresh)} plugin(s), {fresh[0]} '
                'first, which would start at random: set identity_init=True '
                "in their cfg, give weights that have them, or missing='fresh'"
                ' to train them from there.'
            )

    def _report(self, status: Mapping[str, str], unused: set[str]) -> str:
        lines = [f'AttentionPretrained: {self.checkpoint}']
        rows: dict[tuple[str, str], int] = {}
        for name, state in status.items():
            row = re.sub(r'\.\d+\.', '.*.', name), state
            rows[row] = rows.get(row, 0) + 1
        width = max([len(name) for name, _ in rows], default=0)
        lines += [
            f'  {name:{width}}  {count:2d}  {state}'
            for (name, state), count in rows.items()
        ]
        if unused:
            lines.append(f'  not used: {", ".join(sorted(unused))}')
        return '\n'.join(lines)

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(f'AttentionPretrained: {self.checkpoint} {what}')
