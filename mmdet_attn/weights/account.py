"""Every weight of a checkpoint, every plugin of a backbone: accounted for."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Gate
from mmdet_attn.weights.backbone_kind import is_caffe, kind_of
from mmdet_attn.weights.plugins import (
    is_frozen,
    plugins_of,
    refuse_frozen,
    starts_as_identity,
)

CLASSIFIER = re.compile(r'(fc|head|classifier|last_linear)\.')


class Account:
    """A checkpoint against a backbone: what fits, and what does not.

    Args:
        name: Of the checkpoint, for messages.
        state: Its weights, under the backbone's names.
        backbone: The backbone, not changed.

    Attributes:
        status: For each plugin ``'loaded'``, ``'identity'``, ``'fresh'`` or
            ``'no weights'`` (it has none to load).
    """

    def __init__(
        self, name: str, state: Mapping[str, Tensor], backbone: nn.Module
    ) -> None:
        self.name = name
        self.state = state
        self.own = backbone.state_dict()
        self.plugins = plugins_of(backbone)
        self.status = {
            path: self._status(path, plugin)
            for path, plugin in self.plugins.items()
        }

    def _status(self, path: str, plugin: nn.Module) -> str:
        if any(f'{path}.{key}' in self.state for key in plugin.state_dict()):
            return 'loaded'
        if starts_as_identity(plugin):
            return 'identity'
        return 'fresh' if plugin.state_dict() else 'no weights'

    def check(self, missing: str, source: str | None) -> None:
        """Refuse what does not fit.

        Args:
            missing: As of ``AttentionPretrained``.
            source: Whose weights were converted, if they were.

        Raises:
            InputError: As of ``AttentionPretrained``.
        """
        self._check_kind()
        self._check_shapes()
        self._check_keys()
        self._check_weightless(source)
        self._check_starts(missing)

    def report(self) -> str:
        """A table of the plugins, with the blocks of a stage in one row."""
        rows = Counter(
            (re.sub(r'\.\d+\.', '.*.', path), status)
            for path, status in self.status.items()
        )
        width = max([len(path) for path, _ in rows], default=0)
        lines = [f'AttentionPretrained: {self.name}']
        lines += [
            f'  {path:{width}}  {count:2d}  {status}'
            for (path, status), count in rows.items()
        ]
        unused = {k.split('.')[0] for k in self.state.keys() - self.own.keys()}
        if unused:
            lines.append(f'  not used: {", ".join(sorted(unused))}')
        return '\n'.join(lines)

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(f'AttentionPretrained: {self.name} {what}')

    def _check_kind(self) -> None:
        wanted = kind_of(self.own)
        if wanted is None:
            return
        if is_caffe(self.state) and not is_caffe(self.own):
            self._refuse(
                'is a caffe-style network (its keys say so), the config a '
                "PyTorch-style one: convert it, or take torchvision's weights."
            )
        found = kind_of(self.state)
        if found is None:
            first = ', '.join(sorted(self.state)[:3])
            self._refuse(
                f'is no ResNet (it has {first}, ...); a file of another '
                'library must be converted first.'
            )
        # A host with fewer stages uses only those.
        blocks = found.blocks[: len(wanted.blocks)]
        if found._replace(blocks=blocks) != wanted:
            self._refuse(
                f'is a {found}, the config a {wanted}: set backbone.depth '
                'and its stem, or give the weights that belong to them.'
            )

    def _check_shapes(self) -> None:
        state, own = self.state, self.own
        both = [key for key in own if key in state]
        wrong = [key for key in both if own[key].shape != state[key].shape]
        if any(re.search(r'\beca\.conv\.weight$', key) for key in wrong):
            eca = re.compile(r'layer(\d+)\.0\..*eca\.conv\.weight$')
            keys = sorted(key for key in both if eca.match(key))
            found, wanted = (
                ','.join(str(weights[key].shape[-1]) for key in keys)
                for weights in (state, own)
            )
            self._refuse(
                f'has ECA kernels {found} by stage, the config {wanted}: set '
                'kernel_size per stage.'
            )
        if wrong:
            key = wrong[0]
            self._refuse(
                f'has {len(wrong)} weights of another shape: {key} is '
                f'{tuple(state[key].shape)} there and {tuple(own[key].shape)} '
                "in the config: give the plugin's cfg the same arguments."
            )

    def _owner(self, key: str) -> str:
        parts = key.split('.')
        paths = ('.'.join(parts[:i]) for i in range(1, len(parts)))
        return next((path for path in paths if path in self.status), '')

    def _check_keys(self) -> None:
        lacking = [
            key
            for key in self.own.keys() - self.state.keys()
            if not key.endswith(('num_batches_tracked', '.alpha'))
            and self.status.get(self._owner(key), 'loaded') == 'loaded'
        ]
        if lacking:
            self._refuse(
                f'lacks {len(lacking)} weights, {min(lacking)} first: it is '
                'of another network or cut, or its plugins have other parts.'
            )
        tops = {key.split('.')[0] for key in self.own}
        extra = [
            key
            for key in self.state.keys() - self.own.keys()
            if not CLASSIFIER.match(key)
            and key.split('.')[0] in tops
            # A convolution whose place a fresh plugin has taken.
            and self.status.get(key.removesuffix('.weight')) != 'fresh'
        ]
        if extra:
            self._refuse(
                f'has {len(extra)} weights that the config has no place for, '
                f'{min(extra)} first: add the plugin that they belong to, or '
                'convert them if they are in the names of their authors.'
            )

    def _check_weightless(self, source: str | None) -> None:
        """SimAM has no weights by which a gate could know to switch on."""
        names = [
            path
            for path, plugin in self.plugins.items()
            if isinstance(plugin, Gate)
            and plugin._abbr_ == source
            and self.status[path] == 'identity'
        ]
        if names:
            self._refuse(
                f'was trained with {source}, and {names[0]} would stay at '
                'identity: set identity_init=False in its cfg.'
            )

    def _check_starts(self, missing: str) -> None:
        fresh = [path for path in self.plugins if self.status[path] == 'fresh']
        refuse_frozen(
            [name for name in fresh if is_frozen(self.plugins[name])]
        )
        if fresh and missing == 'identity':
            self._refuse(
                f'has no weights for {len(fresh)} plugin(s), {fresh[0]} '
                'first, which would start at random: set identity_init=True '
                "in their cfg, give weights that have them, or missing='fresh'"
                ' to train them from there.'
            )
