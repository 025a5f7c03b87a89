"""Arguments, images and detectors of the tools that look at images."""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmdet_attn.cli import (
    CONFIG_HELP,
    add_trust_checkpoint,
    check_device,
    require_stack,
)
from mmdet_attn.config_errors import config_errors
from mmdet_attn.config_files import find_config, load_config_file
from mmdet_attn.datasets.image_check import why_unreadable
from mmdet_attn.errors import InputError
from mmdet_attn.weights.fit import load_strictly
from mmdet_attn.weights.load import (
    read_ahead,
    refuse_not_finite,
    state_dict_of,
)

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def image_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments of a tool that looks at images."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument(
        'images', nargs='+', help='image files, or folders of images'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='draw detections from this score on',
    )
    parser.add_argument(
        '--device',
        help='such as cpu or cuda:0; the best there is if left out',
    )
    parser.add_argument(
        '--non-strict',
        action='store_true',
        help='go on although the checkpoint does not fit the config',
    )
    add_trust_checkpoint(parser)
    return parser


def check_score_thr(value: float) -> None:
    """Refuse a `--score-thr` that is no score."""
    if not 0 <= value <= 1:
        raise InputError(f'--score-thr must be between 0 and 1, got {value}.')


def collect_images(names: Iterable[str], out_flag: str) -> list[str]:
    """The images that files and folders name; each name once.

    Args:
        names: Image files, or folders of images.
        out_flag: The flag that names where results go, for a message.

    Raises:
        InputError: One is missing, a folder has none, or two images would
            give their results one name.
    """
    images = []
    for name in map(Path, names):
        if name.is_dir():
            inside = sorted(
                p for p in name.iterdir() if p.suffix.lower() in SUFFIXES
            )
            if not inside:
                raise InputError(f'{name} holds no images {SUFFIXES}.')
            images += inside
        elif name.is_file():
            images.append(name)
        else:
            raise InputError(f'{name}: no such image or folder.')
    # Results are named after the image: two of a name would be one result.
    stem, count = Counter(p.stem for p in images).most_common(1)[0]
    if count > 1:
        raise InputError(
            f'{count} images are named {stem}: their results would overwrite '
            f'each other; call again with another {out_flag}.'
        )
    return [str(path) for path in images]


def load_inferencer(
    config: str,
    checkpoint: str,
    device: str | None = None,
    trust: bool = False,
    strict: bool = True,
) -> Any:
    """MMDetection's inferencer, with the weights of a checkpoint.

    Args:
        config: A config file, or `package::file`.
        checkpoint: A file or address, or an ONNX file of `export`.
        device: Such as `'cpu'`; None is the best there is.
        trust: Whether the checkpoint may run code of its own.
        strict: Whether it must fit the config.

    Raises:
        InputError: Config, checkpoint or device is missing or cannot be used,
            weights are not finite, or they do not fit and must.
    """
    find_config(config)
    require_stack()
    if device is not None:
        check_device(device)
    content: dict[str, Any] = {}
    exported = checkpoint.endswith('.onnx')
    if not exported:
        content = read_ahead(checkpoint, trust)
        refuse_not_finite(checkpoint, content)
    from mmdet.apis import DetInferencer

    cfg = load_config_file(config)
    if exported:
        from mmdet_attn.deployment.runtime import use_onnx

        use_onnx(cfg, checkpoint)
    visualizer = cfg.get('visualizer') or {}
    if str(visualizer.get('type')).endswith('DetLocalVisualizer'):
        from mmdet_attn.look.pictures import FittedVisualizer

        visualizer['type'] = FittedVisualizer
    with config_errors(cfg):
        inferencer = DetInferencer(cfg, checkpoint, device)
    if strict and not exported:
        load_strictly(inferencer.model, state_dict_of(content))
    return inferencer


def detect(
    inferencer: Any, image: str, out_dir: str, score_thr: float
) -> dict[str, Any]:
    """Detect objects in an image, and write a picture and JSON.

    Args:
        inferencer: What `load_inferencer` returns.
        image: The image.
        out_dir: Gets `vis/` and `preds/`.
        score_thr: Detections from this score on are drawn.

    Returns:
        What the JSON has.
    """
    result = inferencer(
        image,
        out_dir=out_dir,
        pred_score_thr=score_thr,
        return_datasamples=True,
        no_save_pred=True,
    )
    (sample,) = result['predictions']
    found = inferencer.pred2dict(sample, out_dir)
    classes = classes_of(inferencer)
    height, width = sample.ori_shape[:2]
    found |= {'image': image, 'width': int(width), 'height': int(height)}
    if classes and 'labels' in found:
        found['names'] = [classes[label] for label in found['labels']]
    file = Path(out_dir, 'preds', f'{Path(image).stem}.json')
    file.write_text(json.dumps(found), encoding='utf-8')
    return found


def classes_of(inferencer: Any) -> tuple[str, ...]:
    """The names of the classes of a detector, if it has names for them."""
    return tuple(inferencer.model.dataset_meta.get('classes') or ())


def check_readable(images: Iterable[str]) -> None:
    """Decode every image, before hours of work on those before it.

    Raises:
        InputError: One cannot be decoded.
    """
    require_stack()
    for path in images:
        if why_unreadable(Path(path)):
            raise InputError(
                f'{path} cannot be read as an image; it may be empty, cut '
                'short or of another format: take it out.'
            )
