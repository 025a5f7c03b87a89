"""Checkpoints are read without running their code, and fit or are refused."""

import os
import pickle
import re
from collections import Counter
from pathlib import Path

import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Attention

FORCE_SAFE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
FORCE_UNSAFE = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def mmengine_globals() -> list:
    """What mmengine stores beside tensors: its log buffers, in numpy."""
    import numpy as np

    core = np._core if hasattr(np, '_core') else np.core
    dtypes = {type(np.dtype(kind)) for kind in np.sctypeDict.values()}
    array = [core.multiarray._reconstruct, core.multiarray.scalar]
    # A log buffer names its statistics by getattr, which could fetch
    # anything; what stands in for it fetches nothing else.
    getattr_ = (_statistic, 'builtins.getattr')
    return [HistoryBuffer, getattr_, np.ndarray, np.dtype, *array, *dtypes]


def _statistic(owner: type, name: str):
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'Unsupported GLOBAL {owner}.{name}')


def set_trust(trust: bool) -> None:
    """Decide for this process what reading a checkpoint may do.

    Args:
        trust: Whether a file may run code of its own, as any pickle can.
            Otherwise every ``torch.load``, those inside mmengine included,
            takes tensors, plain Python and :func:`mmengine_globals` only.
    """
    os.environ.pop(FORCE_SAFE if trust else FORCE_UNSAFE, None)
    os.environ[FORCE_UNSAFE if trust else FORCE_SAFE] = '1'
    if not trust:
        torch.serialization.add_safe_globals(mmengine_globals())


def read_checkpoint(path: str, trust: bool = False) -> dict:
    """Read a checkpoint from a file or any address that mmengine knows.

    Raises:
        InputError: It is missing, is no checkpoint, or holds something that
            only a trusted file may hold.
    """
    set_trust(trust)
    local = '://' not in path
    if local and not Path(path).is_file():
        raise InputError(f'{path}: no such checkpoint.')
    try:
        if local:
            content = torch.load(
                path, map_location='cpu', weights_only=not trust
            )
        else:
            content = CheckpointLoader.load_checkpoint(path, 'cpu')
    except Exception as error:  # a damaged file can fail in any way
        culprit = re.search(r'GLOBAL ([\w.]+)', str(error))
        if culprit:
            raise InputError(
                f'{path} wants to import {culprit[1]}, which is neither a '
                'weight nor anything that mmengine stores; loading it could '
                'run any code. If you know who wrote the file: '
                '--trust-checkpoint.'
            ) from None
        reason = re.sub(r'(?s).*WeightsUnpickler error: ', '', str(error))
        raise InputError(
            f'{path} is not a checkpoint that torch can read; it may be '
            f'empty, cut short or of another format '
            f'({type(error).__name__}: {reason.strip().split(chr(10))[0]}).'
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f'{path} holds a {type(content).__name__}, not a checkpoint.'
        )
    return content


def state_dict_of(checkpoint: dict) -> dict[str, Tensor]:
    """The weights of a checkpoint, without a data-parallel prefix."""
    state = checkpoint.get('state_dict', checkpoint)
    return {
        re.sub(r'^module\.', '', key): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_strictly(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights into a model; refuse, with the reasons, what differs.

    Raises:
        InputError: Keys are missing or unexpected, or shapes differ. The
            message groups them and names the likely causes.
    """
    own = model.state_dict()
    shapes = {
        key: (tuple(state[key].shape), tuple(own[key].shape))
        for key in own
        if key in state and state[key].shape != own[key].shape
    }
    rest = {key: value for key, value in state.items() if key not in shapes}
    result = model.load_state_dict(rest, strict=False)
    missing = [
        key
        for key in result.missing_keys
        # Checkpoints of torch before 0.4.1 have no such counters.
        if key not in shapes and not key.endswith('num_batches_tracked')
    ]
    unexpected = result.unexpected_keys
    if not (missing or unexpected or shapes):
        return
    parts = ['The checkpoint does not fit the config.']
    parts += _listing('in the config, not in the checkpoint', missing)
    parts += _listing('in the checkpoint, not in the config', unexpected)
    parts += _listing(
        'of other shapes',
        list(shapes),
        lambda key: (
            f': {shapes[key][0]} in the checkpoint, '
            f'{shapes[key][1]} in the config'
        ),
    )
    parts.append('Likely causes:')
    parts += [f'  - {c}' for c in _causes(model, missing, unexpected, shapes)]
    parts.append('--non-strict loads what fits and leaves the rest random.')
    raise InputError('\n'.join(parts))


def _listing(title, keys, note=lambda key: '') -> list[str]:
    """Keys grouped by module, with blocks and stages folded into one line."""
    pattern = {key: re.sub(r'\d+(?=\.)', '*', key) for key in keys}
    count = Counter(pattern.values())
    first = {pattern[key]: key for key in reversed(keys)}
    lines = [
        f'  {name} ({number}){note(first[name])}'
        for name, number in sorted(count.items())
    ]
    return [f'{len(keys)} {title}:', *lines] if keys else []


def _causes(model, missing, unexpected, shapes) -> list[str]:
    modules = dict(model.named_modules())
    plugins = {name for name, m in modules.items() if isinstance(m, Attention)}
    causes = []

    def owner(key):
        return next((p for p in plugins if key.startswith(p + '.')), None)

    lost = sorted({owner(k).split('.')[-1] for k in missing if owner(k)})
    if lost:
        causes.append(
            f'trained without the plugin {", ".join(lost)}: take it out of '
            'the config (model.backbone.plugins), or test the weights that '
            'belong to this config'
        )
    extra = set()
    for key in unexpected:
        match = re.match(r'(.*\.layer\d+\.\d+)\.(\w+)\.', key)
        if (
            match
            and match[1] in modules
            and f'{match[1]}.{match[2]}' not in (modules)
        ):
            extra.add(match[2])
    if extra:
        causes.append(
            f'trained with the plugin {", ".join(sorted(extra))}, which the '
            'config lacks: add it to model.backbone.plugins'
        )
    if any(owner(k) and k.endswith('.alpha') for k in unexpected):
        causes.append(
            'trained with identity_init=True: set it in the plugin config'
        )
    sizes = {}
    for key, (found, wanted) in shapes.items():
        stage = re.search(r'layer(\d+)\..*\.eca\.conv\.weight$', key)
        if stage:
            sizes[f'stage {stage[1]}'] = (
                f'{found[-1]}, the config {wanted[-1]}'
            )
    if sizes:
        text = '; '.join(f'{s} has {k}' for s, k in sorted(sizes.items()))
        causes.append(f'another ECA kernel_size: {text}')
    head = re.compile(r'_head\.|fc_cls|fc_reg|conv_logits|retina_cls|_cls\.')
    if any(head.search(key) for key in shapes):
        causes.append(
            'another number of classes: give the same --data-root as in '
            'training, or set num_classes of every head'
        )
    blocks = r'^backbone\.layer\d+\.\d+\.conv\d'
    if any(re.match(blocks, key) for key in (*missing, *unexpected)):
        causes.append('another backbone depth')
    return causes or ['another model: compare the two configs']
