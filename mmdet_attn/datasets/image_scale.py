"""Set the size to which the pipelines of a config bring images."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from mmdet_attn.config_checks import walk
from mmdet_attn.errors import InputError

# Steps of pipelines, and what is a size, in pixels, in them.
SIZES = {
    'BatchSyncRandomResize': 'random_size_range',
    'CachedMixUp': 'img_scale',
    'CachedMosaic': 'img_scale',
    'FixScaleResize': 'scale',
    'MixUp': 'img_scale',
    'Mosaic': 'img_scale',
    'Pad': 'size',
    'RandomAffine': 'border',
    'RandomChoiceResize': 'scales',
    'RandomCrop': 'crop_size',
    'RandomResize': 'scale',
    'Resize': 'scale',
}
# Where the steps of a config are.
PLACES = (
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'tta_pipeline',
    'custom_hooks',
    'model',
)
STRIDE = 32  # of the deepest map of most backbones


def set_image_scale(cfg: Config, scale: Sequence[int]) -> None:
    """Give every size in the pipelines of a config the same proportion.

    The first `Resize` of the evaluation gets the new scale. All other sizes,
    such as those of `RandomResize`, `Mosaic` and `Pad`, change by the same
    factors; those of `Pad` are multiples of 32.

    Args:
        cfg: A detection config, which is changed.
        scale: Width and height, as of the `scale` of `Resize`.

    Raises:
        InputError: The scale is too small, or something in the config has
            another size that this function does not know.
    """
    if min(scale) < STRIDE:
        raise InputError(
            f'--image-scale must be at least {STRIDE} {STRIDE}, got '
            f'{scale[0]} {scale[1]}.'
        )
    old = _scale_of_evaluation(cfg)
    # Two sections may be one object.
    done: list[Any] = []
    for path, node in walk({key: cfg.get(key) for key in PLACES}):
        if not isinstance(node, dict) or any(node is one for one in done):
            continue
        done.append(node)
        kind = str(node.get('type')).rpartition('.')[2]
        for key, value in node.items():
            if key == SIZES.get(kind):
                node[key] = _scaled(value, old, scale)
                if key == 'random_size_range':  # of heights: least, greatest
                    node[key] = [round(y * scale[1] / old[1]) for y in value]
                elif kind == 'Pad' and value:
                    node[key] = tuple(
                        -(-side // STRIDE) * STRIDE for side in node[key]
                    )
            elif _is_size(path, key, value):
                raise InputError(
                    f'--image-scale cannot set {path}.{key} ({kind}, '
                    f'{value}): set the sizes in the config instead.'
                )


def _scale_of_evaluation(cfg: Config) -> tuple[int, int]:
    for part in ('val_dataloader', 'test_dataloader'):
        for _, node in walk(cfg.get(part)):
            kind = str(isinstance(node, dict) and node.get('type'))
            if kind.endswith('Resize') and _is_pair(node.get('scale')):
                return tuple(node['scale'])
    raise InputError(
        '--image-scale: the pipeline of the evaluation has no Resize with a '
        'scale (width, height): set the sizes in the config instead.'
    )


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(type(x) is int for x in value)
    )


def _is_size(path: str, key: str, value: Any) -> bool:
    """Whether a value looks like a size of images in pixels."""
    if path.startswith('model') and 'batch_augments' not in path:
        return key in ('input_size', 'image_size', 'img_scale')
    pairs = value if isinstance(value, (list, tuple)) else [value]
    return any(
        _is_pair(pair) and min(pair) >= STRIDE for pair in [value, *pairs]
    ) or (key in ('height', 'width') and type(value) is int)


def _scaled(value: Any, old: Sequence[int], new: Sequence[int]) -> Any:
    """A size, or a list of them, in the new proportion."""
    if not _is_pair(value):  # a list of sizes; a share of the image; None
        whole = isinstance(value, (list, tuple)) and value
        if whole and all(isinstance(x, (list, tuple)) for x in value):
            return [_scaled(one, old, new) for one in value]
        return value
    x, y = (after / before for before, after in zip(old, new, strict=True))
    # Resize takes (short, long) for (long, short), too.
    if (value[0] - value[1]) * (old[0] - old[1]) < 0:
        x, y = y, x
    return (round(value[0] * x), round(value[1] * y))
