"""What the test pipeline of a config does to an image before the network."""

from typing import Any, NamedTuple

from mmengine.config import Config

from mmdet_attn.errors import InputError


class Canvas(NamedTuple):
    """The size to which images are padded, right and below, and with what."""

    height: int
    width: int
    colour: tuple[float, ...]


def test_steps(cfg: Config) -> dict[str, dict]:
    """The steps of the test pipeline, by the last part of their type."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return {
        str(step['type']).rpartition('.')[2]: step for step in dataset.pipeline
    }


def canvas_of(cfg: Config) -> Canvas | None:
    """The canvas of `Pad`; None if the pipeline has no `Pad`.

    Raises:
        InputError: The size depends on the image.
    """
    steps = test_steps(cfg)
    pad: Any = steps.get('Pad')
    if pad is None:
        return None
    size = pad.get('size')
    scale = steps.get('Resize', {}).get('scale')
    if pad.get('pad_to_square') and scale:
        size = (max(scale), max(scale))
    if size is None:
        raise InputError(
            'export: Pad of the test pipeline must have size, or '
            f'pad_to_square behind a Resize with scale, got {dict(pad)}.'
        )
    value = pad.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, dict) else value
    colour = value if isinstance(value, (list, tuple)) else [value] * 3
    return Canvas(size[1], size[0], tuple(map(float, colour)))


def resize_of(cfg: Config) -> dict[str, Any]:
    """`scale` (width, height) and `keep_ratio` of `Resize`, if any."""
    step = test_steps(cfg).get('Resize', {})
    if 'scale' not in step:
        return {}
    keep = step.get('keep_ratio', False)
    return {'scale': list(step['scale']), 'keep_ratio': keep}
