"""``torchvision://`` addresses without torchvision.

mmengine imports torchvision only to look up where a model's weights lie, and
carries a table of the classic ones itself.
"""

from pathlib import Path
from urllib.error import URLError

import mmengine
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_http, load_from_torchvision

from mmdet_attn.errors import InputError

URLS = Path(mmengine.__file__).parent / 'hub' / 'torchvision_0.12.json'


def load(filename: str, map_location=None) -> dict:
    """Load classic torchvision weights, such as ``torchvision://resnet50``.

    Raises:
        InputError: They can be neither found in torch's cache nor downloaded.
    """
    url = mmengine.load(URLS).get(filename.split('://')[1])
    if url is None:
        return load_from_torchvision(filename, map_location)
    try:
        return load_from_http(url, map_location)
    except URLError as error:
        raise InputError(
            f'{filename} cannot be downloaded ({error.reason}). Fetch {url} '
            'elsewhere and give its path: --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE.'
        ) from None


def register() -> None:
    """Let mmengine resolve ``torchvision://`` through :func:`load`."""
    CheckpointLoader.register_scheme(
        prefixes=('modelzoo://', 'torchvision://'), loader=load, force=True
    )
