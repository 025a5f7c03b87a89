"""The configs of this repository, each read once."""

import functools
from copy import deepcopy

from conftest import ROOT
from mmengine.config import Config
from mmengine.config import utils as reader

# For every base of MMDetection, mmengine reads its whole index of models.
reader._get_cfg_metainfo = functools.cache(reader._get_cfg_metainfo)


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def load(name: str) -> Config:
    """A copy of a config, by its path below configs/ without the ending."""
    return deepcopy(_read(name))
