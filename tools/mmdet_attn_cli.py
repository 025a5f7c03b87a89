"""The installed command `mmdet-attn`: it runs `mmdet_attn/__main__.py`."""

import runpy
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    # By its path: importing the package would import torch before --help.
    package = find_spec('mmdet_attn').submodule_search_locations[0]
    runpy.run_path(str(Path(package, '__main__.py')), run_name='__main__')
