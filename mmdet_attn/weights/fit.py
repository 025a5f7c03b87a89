"""Compare weights with a network: what fits, what does not, and why."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Gate
from mmdet_attn.weights.infer_backbone import kind_of
from mmdet_attn.weights.load import backbone_part, state_dict_of
from mmdet_attn.weights.plugins import plugins_of, starts_as_identity

NON_STRICT = '--non-strict loads what fits and leaves the rest random.'
# Checkpoints of torch before 0.4.1 have no such counters.
COUNTER = 'num_batches_tracked'
CLASSIFIER = re.compile(r'(fc|head|classifier|last_linear)\.')
# Names of Detectron's and Caffe's own files.
CAFFE = re.compile(r'(res\d|conv1_w|conv1\.bias|stem\.conv1\.|bn_conv1)')
# Layers with an output for each class.
CLASSES = re.compile(r'cls|fc_reg|conv_logits')


class Fit:
    """Weights against a network.

    Args:
        network: The network.
        state: The weights, under the names of the network.
        optional: Plugins of these statuses may be missing.
        part: Whether the weights may be of more than the network, such as its
            classifier or other parts of a detector.
        load: Whether to load what fits. A module may rename weights while it
            loads them; only then is that seen.
        trained_with: The module that the weights were trained with.

    Attributes:
        status: For each plugin `'loaded'`, `'identity'`, `'fresh'` or
            `'no weights'` (it has none to load).
        missing: Keys of the network that the weights lack.
        unexpected: Keys of the weights that the network lacks.
        shapes: For each key of another shape, that in the weights and that in
            the network.
    """

    def __init__(
        self,
        network: nn.Module,
        state: Mapping[str, Tensor],
        optional: Collection[str] = (),
        part: bool = False,
        load: bool = False,
        trained_with: str | None = None,
    ) -> None:
        self.state = state
        self.trained_with = trained_with
        self.own = network.state_dict()
        self.modules = dict(network.named_modules())
        self.plugins = plugins_of(network)
        self.status = {
            path: self._status(path, plugin)
            for path, plugin in self.plugins.items()
        }
        self.shapes = {
            key: (tuple(state[key].shape), tuple(value.shape))
            for key, value in self.own.items()
            if key in state and state[key].shape != value.shape
        }
        # A gate that loads its weights sets its alpha itself.
        missing = [
            key
            for key in self.own
            if key not in state and not key.endswith('.alpha')
        ]
        unexpected = [key for key in state if key not in self.own]
        if load:
            missing, unexpected = network.load_state_dict(
                {k: v for k, v in state.items() if k not in self.shapes},
                strict=False,
            )
        self.missing = [
            key
            for key in missing
            if key not in self.shapes
            and not key.endswith(COUNTER)
            and self.status.get(self._plugin(key)) not in optional
        ]
        self.unexpected = [
            key for key in unexpected if not (part and self._elsewhere(key))
        ]

    def problem(self, way_out: str = '') -> str | None:
        """List what does not fit, with the likely causes.

        Args:
            way_out: The last line.
        """
        for path, plugin in self.plugins.items():
            if (
                self.status[path] == 'identity'
                and isinstance(plugin, Gate)
                and plugin._abbr_ == self.trained_with
            ):  # without weights it cannot notice that it was trained
                return (
                    f'The checkpoint was trained with {self.trained_with}, '
                    f'and {path} would stay at identity: set '
                    'identity_init=False in its cfg.'
                )
        if not (self.missing or self.unexpected or self.shapes):
            return None
        lines = [
            'The checkpoint does not fit the config.',
            *listing('in the config, not in the checkpoint', self.missing),
            *listing('in the checkpoint, not in the config', self.unexpected),
            *listing('of other shapes', self.shapes, self._both_shapes),
            'Likely causes:',
            *(f'  - {cause}' for cause in self._causes()),
        ]
        return '\n'.join([*lines, way_out] if way_out else lines)

    def _status(self, path: str, plugin: nn.Module) -> str:
        if any(f'{path}.{key}' in self.state for key in plugin.state_dict()):
            return 'loaded'
        if starts_as_identity(plugin):
            return 'identity'
        return 'fresh' if plugin.state_dict() else 'no weights'

    def _has(self, path: str) -> bool:
        """Whether there are weights of a module."""
        return any(key.startswith(f'{path}.') for key in self.state)

    def _plugin(self, key: str) -> str:
        """The plugin that a key belongs to, or nothing."""
        return next((p for p in self.plugins if key.startswith(f'{p}.')), '')

    def _elsewhere(self, key: str) -> bool:
        """Whether a key belongs to something outside the network."""
        return bool(
            CLASSIFIER.match(key)
            or key.split('.')[0] not in {k.split('.')[0] for k in self.own}
            # A convolution whose place a fresh plugin has taken, or its norm.
            or self.status.get(re.sub(r'\b(conv|bn)2\.\w+$', 'conv2', key))
            == 'fresh'
        )

    def _both_shapes(self, key: str) -> str:
        found, wanted = self.shapes[key]
        return f': {found} in the checkpoint, {wanted} in the config'

    def _causes(self) -> list[str]:
        """The likely causes, with the way out of each."""
        absent = set(map(self._plugin, self.missing)) - {''}
        cut = {path for path in absent if self.status[path] == 'loaded'}
        # Without the block around it another backbone is the cause.
        lost = {
            path for path in absent - cut if self._has(path.rpartition('.')[0])
        }
        foreign, extra, alpha = set[str](), set[str](), False
        for key in self.unexpected:
            plugin = self._plugin(key)
            child = re.match(r'((?:.*\.)?layer\d+\.\d+)\.\w+', key)
            if plugin and key.endswith('.alpha'):
                alpha = True
            elif plugin:
                foreign.add(plugin)
            elif child and child[1] in self.modules:
                extra |= {child[0]} - self.modules.keys()
        sizes, others, classes, stem = {}, set[str](), False, False
        for key, (found, wanted) in sorted(self.shapes.items()):
            if stage := re.search(
                r'\blayer(\d+)\..*\beca\.conv\.weight$', key
            ):
                sizes[stage[1]] = (
                    f'stage {stage[1]} has {found[-1]}, the config '
                    f'{wanted[-1]}'
                )
            else:
                others |= {self._plugin(key)} - {''}
            stem |= bool(re.match(r'(backbone\.)?(conv1|stem)\b', key))
            classes |= bool(CLASSES.search(key)) and found[:1] != wanted[:1]
        parts = {
            k.split('.')[0] for k in self.unexpected
        } - self.modules.keys()
        causes = {
            self._other_backbone(): True,
            'another backbone: its stem has another width': stem,
            f'trained without the plugin {_names(lost)}: take it out of the '
            'config (model.backbone.plugins), or give the weights that '
            'belong to this config': lost,
            f'the plugin {_names(cut)} has other parts in the checkpoint, or '
            'the file is cut': cut,
            f'trained with the plugin {_names(extra)}, which the config '
            'lacks: add it to model.backbone.plugins': extra,
            f'the plugin {_names(foreign)} has the names of its authors in '
            'the checkpoint: convert it, see '
            'tools/model_converters/convert_checkpoint.py': foreign,
            'trained with identity_init=True: set it in the cfg': alpha,
            'another ECA kernel_size: '
            f'{"; ".join(sizes.values())}: set it per stage': sizes,
            f'other arguments of the plugin {_names(others)}: give its cfg '
            'the same': others,
            'another number of classes: give the same --data-root as in '
            'training, or set num_classes of every head': classes,
            f'another detector: it has {_names(parts)}, the config has '
            'not': parts,
        }
        return [
            cause for cause, found in causes.items() if cause and found
        ] or ['the file is of another model, or cut: compare the two configs']

    def _other_backbone(self) -> str:
        """How the backbone of the weights differs from the network's."""
        state = backbone_part(dict(self.state))
        wanted, found = kind_of(backbone_part(self.own)), kind_of(state)
        if wanted and self.missing and any(map(CAFFE.match, state)):
            return (
                'a caffe-style network, by its keys: convert it, or take '
                "torchvision's weights"
            )
        if wanted and self.missing and not found:
            return (
                f'no ResNet, but {", ".join(sorted(state)[:3])}, ...: a file '
                'of another library must be converted first'
            )
        if wanted and found:
            # A network with fewer stages uses only those.
            blocks = found.blocks[: len(wanted.blocks)]
            if found._replace(blocks=blocks) != wanted:
                return (
                    f'another backbone: a {found} in the checkpoint, a '
                    f'{wanted} in the config: set its depth and stem'
                )
        return ''


def load_strictly(
    model: nn.Module,
    state: Mapping[str, Tensor],
    way_out: str = NON_STRICT,
    optional: Collection[str] = (),
    trained_with: str | None = None,
) -> None:
    """Load weights into a model; refuse, with the reasons, what differs.

    Args:
        model: The model.
        state: The weights.
        way_out: The last line of the message.
        optional: As of `Fit`.
        trained_with: As of `Fit`.

    Raises:
        InputError: Keys are missing or unexpected, or shapes differ.
    """
    fit = Fit(model, state, optional, load=True, trained_with=trained_with)
    if problem := fit.problem(way_out):
        raise InputError(problem)


class StartHook(Hook):
    """Refuse to start a training from weights that do not fit.

    The weights of `load_from` may be of another number of classes: layers
    with an output for each class then keep their start. They may also lack
    plugins that start as the identity. A checkpoint to resume from must fit.

    Args:
        strict: Whether to refuse at all.
    """

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if not self.strict:
            return
        model = runner.model
        while hasattr(model, 'module'):
            model = model.module
        optional = () if runner._resume else ('identity',)
        fit = Fit(model, state_dict_of(checkpoint), optional, load=True)
        classes = {
            key
            for key, (found, wanted) in fit.shapes.items()
            if CLASSES.search(key) and found[1:] == wanted[1:]
        }
        if classes and not runner._resume:
            runner.logger.info(
                'load_from has another number of classes; these layers keep '
                f'their start: {", ".join(sorted(classes))}'
            )
            fit.shapes = {
                k: fit.shapes[k] for k in fit.shapes.keys() - classes
            }
        if problem := fit.problem(NON_STRICT):
            raise InputError(problem)


def _names(paths: Iterable[str]) -> str:
    """The last parts of dotted names."""
    return ', '.join(sorted({path.split('.')[-1] for path in paths}))


def listing(
    title: str, keys: Collection[str], note: Callable = lambda key: ''
) -> list[str]:
    """Keys grouped by module, with blocks and stages folded into one line."""
    pattern = {key: re.sub(r'\d+(?=\.)', '*', key) for key in keys}
    count = Counter(pattern.values())
    first = {pattern[key]: key for key in reversed(list(keys))}
    lines = [
        f'  {name} ({number}){note(first[name])}'
        for name, number in sorted(count.items())
    ]
    return [f'{len(keys)} {title}:', *lines] if keys else []
