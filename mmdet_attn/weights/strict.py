"""Weights fit a model, or are refused with the likely cause."""

import re
from collections import Counter

from torch import Tensor, nn

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import Attention

NON_STRICT = '--non-strict loads what fits and leaves the rest random.'


def load_strictly(
    model: nn.Module, state: dict[str, Tensor], way_out: str = NON_STRICT
) -> None:
    """Load weights into a model; refuse, with the reasons, what differs.

    Args:
        model: The model.
        state: The weights.
        way_out: The last line of the message.

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
    parts.append(way_out)
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
    # The outermost first: CBAM before the gates inside it.
    plugins = sorted(
        (name for name, m in modules.items() if isinstance(m, Attention)),
        key=len,
    )
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
        if match and match[1] in modules and match[0][:-1] not in modules:
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
    last = re.compile(r'fc_cls|fc_reg|conv_logits|retina_cls|conv_cls')
    if any(
        last.search(key) and found[0] != wanted[0]
        for key, (found, wanted) in shapes.items()
    ):
        causes.append(
            'another number of classes: give the same --data-root as in '
            'training, or set num_classes of every head'
        )
    if any(re.match(r'backbone\.(conv1|stem)\b', key) for key in shapes):
        causes.append('another backbone: its stem has another width')
    blocks = r'^backbone\.layer\d+\.\d+\.conv\d'
    if any(re.match(blocks, key) for key in (*missing, *unexpected)):
        causes.append('another backbone depth')
    parts = {key.split('.')[0] for key in unexpected} - modules.keys()
    if parts:
        causes.append(
            f'another detector: it has {", ".join(sorted(parts))}, the '
            'config has not'
        )
    return causes or ['another model: compare the two configs']
