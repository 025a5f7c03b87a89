"""The settings of a training that influence its AP, from its config."""

from collections.abc import Mapping

from mmengine.config import Config

from mmdet_attn.study.results.attention import (
    describe,
    entries,
    kernel_sizes,
    modules,
    short,
)
from mmdet_attn.study.results.images import data_set, image_scale
from mmdet_attn.study.results.logs import Run

# Only the first run decides about these.
AT_START = ('weights', "attention's start", 'detector loaded')
FROZEN = {-1: 'none', 0: 'the stem'}
# How plugins started, in the words of AttentionPretrained's log.
STARTS = {
    'loaded': 'from the weights',
    'identity': 'as identity',
    'fresh': 'at random',
    'no weights': 'without weights',
}


def facts(cfg: Config, run: Run) -> dict[str, str]:
    """Every setting that the paper's recipe has, by its label."""
    backbone = cfg.model.get('backbone') or {}
    frozen = backbone.get('frozen_stages', -1)
    found = {
        'data set': data_set(cfg),
        'batch': _batch(cfg, run),
        **_optimisation(cfg, run),
        **_schedule(cfg),
        'weights': _weights(cfg),
        'detector loaded': _detector(cfg),
        'frozen stages': FROZEN.get(frozen, str(frozen)),
        'norm': _norm(backbone),
        'image scale': image_scale(cfg),
        'attention': describe(cfg.model),
        'kernel sizes': kernel_sizes(cfg.model),
    }
    if modules(cfg.model):
        starts = [word for key, word in STARTS.items() if key in run.starts]
        unknown = 'not in the log'
        if found['weights'] == 'none':
            unknown = 'from scratch'
        found["attention's start"] = ' and '.join(starts) or unknown
    return found


def _batch(cfg: Config, run: Run) -> str:
    each = cfg.train_dataloader.get('batch_size', 1)
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    per = f'{each}' + (f' x {steps} steps' if steps > 1 else '')
    if run.processes is None:
        return f'{per} on an unknown number of GPUs'
    return f'{run.processes * each * steps} ({run.processes} x {per})'


def _optimisation(cfg: Config, run: Run) -> dict[str, str]:
    wrapper = cfg.optim_wrapper
    optimizer = {'type': 'unknown', **(wrapper.get('optimizer') or {})}
    clip = wrapper.get('clip_grad')
    mixed = short(wrapper.get('type', '')) == 'AmpOptimWrapper'
    name, lr = short(optimizer.pop('type')), optimizer.pop('lr', None)
    if wrapper.get('paramwise_cfg'):
        optimizer['paramwise_cfg'] = wrapper.paramwise_cfg
    return {
        'learning rate': 'default' if lr is None else f'{lr * run.lr_scale:g}',
        'optimiser': ', '.join([name, *_arguments(optimizer)]),
        'gradient clipping': ', '.join(_arguments(clip or {})) or 'none',
        'precision': 'mixed' if mixed else 'float32',
    }


def _arguments(cfg: Mapping) -> list[str]:
    return [f'{key}={value}' for key, value in sorted(cfg.items())]


def _schedule(cfg: Config) -> dict[str, str]:
    warm_up = []
    steps = [f'{cfg.train_cfg.get("max_epochs")} epochs']
    for part in entries(cfg.get('param_scheduler')):
        kind = short(part['type'])
        if kind in ('LinearLR', 'ConstantLR') and not part.get('begin', 0):
            unit = 'epochs' if part.get('by_epoch', True) else 'iterations'
            factor = part.get('start_factor', part.get('factor', 1 / 3))
            # It ends at the iteration before `end`.
            end = part.get('end')
            length = end - 1 if isinstance(end, int) else end
            warm_up.append(f'{length} {unit} from {factor:.3g}')
        elif kind == 'MultiStepLR' and part.get('by_epoch', True):
            after = ', '.join(map(str, part['milestones']))
            steps.append(f'x {part.get("gamma", 0.1):g} after {after}')
        else:
            rest = {k: v for k, v in part.items() if k != 'type'}
            steps.append(f'{kind}({", ".join(_arguments(rest))})')
    return {
        'schedule': ', '.join(steps),
        'warm-up': ', '.join(warm_up) or 'none',
    }


def _weights(cfg: Config) -> str:
    parts = (cfg.model.get('backbone') or {}, cfg.model)
    for init in (i for part in parts for i in entries(part.get('init_cfg'))):
        if init.get('checkpoint'):
            return str(init['checkpoint'])
    return 'none'


def _detector(cfg: Config) -> str:
    # With resume, it is the checkpoint to carry on from.
    loaded = None if cfg.get('resume') else cfg.get('load_from')
    return str(loaded or 'none')


def _norm(backbone: Mapping) -> str:
    norm = backbone.get('norm_cfg') or {'type': 'BN'}
    fixed = backbone.get('norm_eval', 'depth' in backbone)
    return f'{short(norm["type"])}, {"fixed" if fixed else "learning"}'
