"""The tidy table: one row for each training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
# Names in evaluations, and what stands before a metric in the table.
KINDS = {'bbox': '', 'segm': 'mask_'}
NAMES = [prefix + metric for prefix in KINDS.values() for metric in METRICS]
PLAIN = 'none'


@dataclass
class Run:
    """One training.

    Attributes:
        name: Its name in tables.
        work_dir: Its folder, which may hold `matches.npz`.
        facts: What `read_facts` returns. Empty if it has not started.
        plan: Its row of `plan.json`. Empty if there is none.
    """

    name: str
    work_dir: Path
    facts: Mapping[str, Any]
    plan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Mapping[str, Any]:
        """The config of its detector."""
        return (self.facts.get('config') or {}).get('model') or {}

    @cached_property
    def row(self) -> dict[str, Any]:
        """Its row of the table. AP is in percent."""
        facts, plan = self.facts, self.plan
        evaluations = facts.get('evaluations') or []
        last = evaluations[-1] if evaluations else {}
        schedule, weights = facts.get('schedule'), facts.get('weights')
        epochs = [e for e, _ in facts.get('loss') or [[0, 0]]]
        ap = {
            prefix + metric: percent(last.get(kind), metric)
            for kind, prefix in KINDS.items()
            for metric in METRICS
        }
        return {
            'run': self.name,
            'base': plan.get('base') or base_of(self.model),
            'attention': plan.get('attention') or attention_of(self.model),
            'seed': plan.get('seed', facts.get('seed')),
            'finished': bool(facts.get('finished')),
            'epoch': last.get('epoch', epochs[-1]),
            'epochs': (schedule or {}).get('epochs'),
            **ap,
            'parameters': plan.get('parameters') or facts.get('parameters'),
            'gflops': plan.get('gflops'),
            'seconds': facts.get('seconds'),
            'memory_mb': facts.get('memory_mb'),
            'processes': facts.get('processes'),
            'device': facts.get('device'),
            'weights': weights
            and (weights.get('load_from') or weights['init'] or 'none'),
            'work_dir': str(self.work_dir),
        }


def percent(found: Mapping | None, metric: str) -> float | None:
    """A metric of one kind of an evaluation, in percent."""
    value = found['all'].get(metric) if found else None
    return None if value is None else round(100 * value, 6)


def attention_of(model: Any) -> str:
    """The classes of the attention in a detector's config."""
    return '+'.join(dict.fromkeys(_attention(model))) or PLAIN


def _attention(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for item in part:
            yield from _attention(item)
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == 'plugins':
                yield from (short(p['cfg']['type']) for p in value or ())
            elif key in ('plugin', 'dcn') and value:
                yield short(value['type'])
            else:
                yield from _attention(value)


def base_of(model: Mapping) -> str:
    """A detector's config in words: its detector and backbone."""
    backbone = model.get('backbone') or {}
    while 'host' in backbone:  # of mmdet_attn.insert
        backbone = backbone['host']
    name = short(backbone.get('type', '')).removeprefix('Attention')
    depth = f'-{backbone["depth"]}' if 'depth' in backbone else ''
    return f'{short(model.get("type", "?"))} {name}{depth}'.strip()


def short(kind: Any) -> str:
    """A type without the scope in front."""
    return str(kind).split('.')[-1]
