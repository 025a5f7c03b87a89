"""Fold gates that are constant into the layers in front of them."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mmdet_attn.errors import InputError
from mmdet_attn.insertion import wraps
from mmdet_attn.module_names import find, nearest
from mmdet_attn.places import tensors
from mmdet_attn.plugins import Gate
from mmdet_attn.study.effects import GatePart, Part
from mmdet_attn.study.evaluation import Evaluation, build_detector
from mmdet_attn.weights.fit import load_strictly
from mmdet_attn.weights.plugins import plugins_of
from mmdet_attn.weights.save import for_publication, write_checkpoint

LAYERS = (nn.Conv2d, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm)
FOLDED = ('constant', 'nothing', 'fixed')
DENSE = ('rpn_head', 'bbox_head')
SAME = 1e-4  # relative difference of the maps of two equal networks


class Fold:
    """The gates of a detector, and the layers that could take them in.

    Args:
        cfg: The config of the detector.
        detector: The detector, in eval mode.
        parts: Its parts under audit.
        batch: Images, for one run.

    Attributes:
        refused: Why a plugin cannot be folded.
        plugins: The gates of each plugin that can.

    Raises:
        InputError: None can.
    """

    def __init__(
        self, cfg: Config, detector: Any, parts: Sequence[Part], batch: Any
    ) -> None:
        self.cfg, self.detector, self.batch = cfg, detector, batch
        self.fronts = _fronts(detector, parts, batch)
        self.plugins: dict[str, list[GatePart]] = {}
        self.refused: dict[str, str] = {}
        for name, plugin in plugins_of(detector).items():
            gates = [
                part
                for part in parts
                if isinstance(part, GatePart)
                and f'{part.name}.'.startswith(f'{name}.')
            ]
            if reason := self._reason(name, plugin, gates):
                self.refused[name] = reason
            else:
                self.plugins[name] = gates
        if not self.plugins:
            raise InputError(
                f'--fold: no gate can be folded. {listed(self.refused)} Leave '
                '--fold out.'
            )

    def _reason(
        self, name: str, plugin: nn.Module, gates: list[GatePart]
    ) -> str:
        """Why a plugin cannot be folded, or nothing."""
        if name.split('.')[0] not in ('backbone', 'neck', *DENSE):
            return 'it is in a second stage'
        inside = tuple(f'{gate.name}.' for gate in gates)
        others = [
            path
            for path, module in plugin.named_modules(prefix=name)
            if not (any(module.children()) or f'{path}.'.startswith(inside))
        ]
        forwards = {type(gate.module).forward for gate in gates}
        if others or forwards != {Gate.forward}:
            return 'it does more than multiply'
        front = self._front(gates[0].name)
        layer = self.detector.get_submodule(front) if front else None
        if not isinstance(layer, LAYERS) or layer.weight is None:
            return 'no norm and no convolution stands directly in front of it'
        return ''

    def _front(self, name: str) -> str:
        """The layer in front of a gate and of other gates before it."""
        while isinstance(self.detector.get_submodule(name), Gate):
            found = self.fronts.get(name, set())
            if len(found) != 1:
                return ''
            (name,) = found
        return name

    def __call__(
        self, factors: Mapping[str, Tensor]
    ) -> tuple[Config, dict[str, Tensor], list[str]]:
        """Fold gates.

        Args:
            factors: By the name of a gate its factor for each channel, or
                one for all. A plugin is folded if each of its gates is here.

        Returns:
            The config without the folded plugins, the weights for it, and
            the names of the plugins.
        """
        names = {
            name
            for name, gates in self.plugins.items()
            if all(gate.name in factors for gate in gates)
        }
        cfg = deepcopy(self.cfg)
        names = self._take_out(cfg.model, names)
        gates = [gate for name in names for gate in self.plugins[name]]
        state = {
            key: value.clone()
            for key, value in self.detector.state_dict().items()
            if not key.startswith(tuple(f'{name}.' for name in names))
        }
        for gate in gates:
            front = self._front(gate.name)
            for key in (f'{front}.weight', f'{front}.bias'):
                if key in state:
                    shape = [1] * (state[key].dim() - 1)
                    factor = factors[gate.name].to(state[key].device)
                    product = state[key] * factor.reshape(-1, *shape)
                    state[key] = product.to(state[key].dtype)
        return cfg, state, sorted(names)

    def _take_out(self, model: ConfigDict, names: set[str]) -> set[str]:
        """Take plugins out of the config of a model; return those taken."""
        taken: set[str] = set()
        for path, module in self.detector.named_modules():
            start = f'{path}.' if path else ''
            mine = {name for name in names if name.startswith(start)}
            if not mine:
                continue
            if hasattr(module, 'insertions'):
                mine &= {start + i.path for i in module.insertions.items}
                taken |= _uninsert(model, path, module, mine)
            elif hasattr(module, 'res_layers') and module.plugins:
                taken |= self._unplug(model, path, module, mine)
        for name in names - taken:
            self.refused.setdefault(name, 'its config cannot do without it')
        return taken

    def _unplug(
        self, model: ConfigDict, path: str, resnet: Any, names: set[str]
    ) -> set[str]:
        """Take plugins out of whole stages of a ResNet."""
        node = _node(model, path)
        while wraps(node):
            node = node.host
        inside = {f'{path}.{name}' for name in plugins_of(resnet)}
        taken: set[str] = set()
        keep = [True] * len(resnet.res_layers)
        for index, layer in enumerate(resnet.res_layers):
            stage = {n for n in inside if n.startswith(f'{path}.{layer}.')}
            if stage and stage <= names:
                keep[index], taken = False, taken | stage
            for name in stage & names - taken:
                self.refused[name] = 'other plugins of its stage stay'
        specs = []
        for spec in node.plugins:
            on = spec.get('stages') or [True] * len(keep)
            stages = tuple(a and b for a, b in zip(on, keep, strict=True))
            if any(stages):
                specs.append(ConfigDict({**spec, 'stages': stages}))
        node.plugins = specs or None
        return taken


def _uninsert(
    model: ConfigDict, path: str, host: Any, names: set[str]
) -> set[str]:
    """Take plugins out of a host that `insert` has wrapped."""
    parent, _, key = path.rpartition('.')
    holder = _node(model, parent) if parent else model
    node = holder[key]
    if wraps(node.host):
        return set()
    start, items = f'{path}.', iter(host.insertions.items)
    specs = []
    for spec in node.plugins:
        places = find(host, spec['at'], spec.get('place', 'after'))
        own = [next(items) for _ in places]
        rest = [item.at for item in own if start + item.path not in names]
        if rest:
            at = spec['at'] if len(rest) == len(own) else rest
            specs.append(ConfigDict({**spec, 'at': at}))
    if specs:
        node.plugins = specs
    else:
        holder[key] = node.host
    return names


def _node(model: ConfigDict, path: str) -> ConfigDict:
    """The config of a module, by the names of its parents."""
    for key in path.split('.'):
        model = model[key]
    return model


def check_patterns(wanted: Sequence[str], parts: Sequence[Part]) -> None:
    """Refuse a pattern that no gate has.

    Raises:
        InputError: There is one.
    """
    gates = [part.name for part in parts if isinstance(part, GatePart)]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in gates):
            raise InputError(
                f'--fold-gates: {pattern!r} matches no gate.'
                f'{nearest(pattern, gates)}'
            )


def constants(
    groups: Sequence[Mapping], parts: Sequence[Part], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """The factors of the gates to fold.

    Args:
        groups: Those of an audit; the first has all parts.
        parts: The parts.
        wanted: Patterns over names of gates to fold in any case. Without
            one, the verdicts decide: one number for a gate of a group that
            is constant or does nothing, one for each channel of a gate
            without positions in a group that acts as a fixed map.
    """
    gates = {p.name: p for p in parts if isinstance(p, GatePart) and p.ran}
    if wanted:
        rule = {
            name: 'constant' if gate.factors[0].numel() > 1 else 'fixed'
            for name, gate in gates.items()
            if any(fnmatchcase(name, pattern) for pattern in wanted)
        }
    else:
        rule = {}
        for group in groups:
            for name in group['parts']:
                if rule.get(name) not in FOLDED:
                    rule[name] = group['verdict']
    factors: dict[str, Tensor] = {}
    for name, gate in gates.items():
        mean = gate.factors
        if rule.get(name) in ('constant', 'nothing'):
            factors[name] = mean.mean()
        elif rule.get(name) == 'fixed' and mean[0].numel() == 1:
            factors[name] = mean.flatten()
    return factors


def write_folded(
    fold: Fold,
    factors: Mapping[str, Tensor],
    evaluation: Evaluation,
    file: Path,
    meta: Mapping,
    step: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Fold gates, check and evaluate the result, and write it.

    Args:
        fold: What can be folded.
        factors: Those of the gates to fold.
        evaluation: The images and the metric.
        file: The checkpoint to write. Its config gets the suffix `.py`.
        meta: Of the checkpoint of the detector.
        step: Called after each batch with its number of images.

    Returns:
        What was folded and why others were not, and AP.

    Raises:
        InputError: There is nothing to fold, or the folded detector is
            another one.
    """
    cfg, state, names = fold(factors)
    others = sorted(fold.plugins.keys() - {*names, *fold.refused})
    left = dict.fromkeys(others, 'its verdict is another') | fold.refused
    if not names:
        raise InputError(
            f'--fold: no gate was folded. {listed(left)} --fold-gates chooses '
            'gates whatever the verdict is.'
        )
    folded = _check_same(fold, cfg, state, names, factors)
    ap, _ = evaluation.run(folded, step)
    text = cfg.pretty_text
    meta = {**meta, 'cfg': text}
    content = for_publication({'state_dict': state, 'meta': meta})
    write_checkpoint(content, file)
    file.with_suffix('.py').write_text(text, encoding='utf-8')
    return {
        'file': str(file),
        'config': str(file.with_suffix('.py')),
        'plugins': names,
        'left': left,
        'ap': ap,
    }


def _check_same(
    fold: Fold,
    cfg: Config,
    state: dict[str, Tensor],
    names: Sequence[str],
    factors: Mapping[str, Tensor],
) -> Any:
    """Build the folded detector, and compare its maps with the constants'."""
    device = next(fold.detector.parameters()).device
    folded = build_detector(cfg, str(device))
    load_strictly(folded, state, way_out='')
    gates = [gate for name in names for gate in fold.plugins[name]]
    heads = {gate.name.split('.')[0] for gate in gates} & {*DENSE}
    try:
        for gate in gates:
            factor = factors[gate.name].reshape(-1, 1, 1)
            gate.module.forward = lambda x, f=factor: x * f.to(x)
        wanted = _maps(fold.detector, fold.batch, heads)
    finally:
        for gate in gates:
            gate.use('trained')
    got = _maps(folded, fold.batch, heads)
    worst = 0.0
    for one, two in zip(wanted, got, strict=True):
        worst = max(worst, float((one - two).abs().max() / one.abs().max()))
    if not worst < SAME:
        raise InputError(
            f'--fold: the folded detector differs from that with constants '
            f'by {worst:.1g}. A layer in front of a gate is used elsewhere, '
            'too: choose others with --fold-gates.'
        )
    return folded


@torch.no_grad()
def _maps(detector: Any, batch: Any, heads: set[str]) -> list[Tensor]:
    """The maps of the neck, and the predictions of dense heads."""
    inputs = detector.data_preprocessor(deepcopy(batch), False)['inputs']
    maps = detector.extract_feat(inputs)
    found = [getattr(detector, head)(maps) for head in sorted(heads)]
    return [*tensors([maps, found])]


def _fronts(
    detector: Any, parts: Sequence[Part], batch: Any
) -> dict[str, set[str]]:
    """The modules whose output the parts take as it is; '' is unknown."""
    # By the memory of a tensor: in it lie its views, too, such as tokens
    # that become a map. An operation in place changes the version.
    made: dict[int, tuple[str, Any, int]] = {}
    found: dict[str, set[str]] = {}

    def maker(x: Tensor) -> str:
        place = x.untyped_storage().data_ptr()
        name, alive, version = made.get(place, ('', lambda: None, -1))
        y = alive()
        same = version == x._version and y is not None
        return name if same and y.numel() == x.numel() else ''

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            if isinstance(output, Tensor) and not maker(output):
                place = output.untyped_storage().data_ptr()
                made[place] = (name, weakref.ref(output), output._version)

        return hook

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: tuple) -> None:
            found.setdefault(name, set()).add(maker(args[0]))

        return hook

    handles: list[Any] = []
    for name, module in detector.named_modules():
        # Before the hook of an insertion, which replaces the output.
        handles.append(module.register_forward_hook(note(name), prepend=True))
    for part in parts:
        handles.append(part.module.register_forward_pre_hook(look(part.name)))
    try:
        with torch.no_grad():
            detector.test_step(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def listed(reasons: Mapping[str, str]) -> str:
    """One sentence for each reason, with the names."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return ' '.join(
        f'{", ".join(some)}: {reason}.' for reason, some in names.items()
    )
