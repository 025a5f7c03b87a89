"""A comparison as plain data."""

from collections.abc import Sequence
from typing import Any

from mmdet_attn.study.results.compare import Comparison
from mmdet_attn.study.results.paper import AP


def as_json(compared: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A comparison as plain data, with AP and gains in percent."""
    rows = []
    for each in compared:
        training, gain = each.training, each.gain
        rows.append(
            {
                'name': training.name,
                'work_dir': str(training.work_dir),
                **training.identity._asdict(),
                'epoch': training.epoch,
                'max_epochs': training.max_epochs,
                'finished': training.finished,
                'ap': {
                    kind: {e: ap._asdict() for e, ap in by_epoch.items()}
                    for kind, by_epoch in training.ap.items()
                    if by_epoch
                },
                'paper': _plain(each.paper),
                'gain': gain
                and {
                    'baseline': gain.baseline.name,
                    'epoch': gain.epoch,
                    'ap': _plain(gain.ap),
                    'paper': _plain(gain.paper),
                    'differs': [d._asdict() for d in gain.differs],
                },
                'setup': training.facts,
                'differs': [d._asdict() for d in each.differs],
                'notes': each.notes,
            }
        )
    return rows


def _plain(found: dict[str, AP]) -> dict[str, dict]:
    return {kind: ap._asdict() for kind, ap in found.items()}
